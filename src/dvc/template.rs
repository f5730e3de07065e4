//! The `${...}` of `dvc.yaml`: finding the value, putting it into text.

use crate::dvc::value;
use crate::dvc::yaml::{Map, Node, Scalar};

/// Twice what a path may have: longer templates and longer results are refused.
const TEXT_MAX: usize = 8 << 10;

/// Why a `${...}` cannot be worked out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No variable has this name.
    #[error("no value for ${{{0}}}")]
    Unresolved(String),
    /// The value is a list, a mapping or null where text is wanted.
    #[error("the value of ${{{0}}} is not text")]
    NotText(String),
    /// The result is longer than any path, or has more parts than any list of stages.
    #[error("the template expands to too much")]
    TooLarge,
}

/// The values that a template may name.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The variables, those of the stage before those of the file.
    pub vars: &'a [&'a Map],
    /// What a generated stage was generated for.
    pub each: Option<&'a Each<'a>>,
}

/// What one generated stage was generated for.
pub struct Each<'a> {
    /// The value of `${key}`, where there is one.
    pub key: Option<Node>,
    /// The value of `${item}`.
    pub item: Item<'a>,
}

/// The value of `${item}`.
pub enum Item<'a> {
    /// An element of a `foreach`.
    One(&'a Node),
    /// A cell of a `matrix`: a value per dimension.
    Cell(Vec<(&'a str, &'a Node)>),
}

impl<'a> Scope<'a> {
    /// Works out all templates in `text`; `\${` stands for `${`.
    pub fn text(&self, text: &str) -> Result<String, TemplateError> {
        if text.len() > TEXT_MAX {
            return Err(TemplateError::TooLarge);
        }
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('\\') {
                result += before;
                result += "${";
                rest = after;
                continue;
            }
            let Some((expression, after)) = after.split_once('}') else {
                break;
            };
            result += before;
            result += &self.display(expression)?;
            rest = after;
            if result.len() > TEXT_MAX {
                return Err(TemplateError::TooLarge);
            }
        }
        result += rest;
        Ok(result)
    }

    /// Works out all templates below `node`. A string that is one template takes the value's type.
    ///
    /// `budget` is what the result may still cost, in bytes.
    pub fn node(&self, node: &Node, budget: &mut usize) -> Result<Node, TemplateError> {
        match node {
            Node::Scalar(scalar) => self.scalar(scalar, budget),
            Node::List(list) => {
                spend(budget, 0)?;
                list.iter()
                    .map(|node| self.node(node, budget))
                    .collect::<Result<_, _>>()
                    .map(Node::List)
            }
            Node::Map(map) => {
                spend(budget, 0)?;
                let entry = |(key, node): (&String, &Node)| {
                    spend(budget, key.len())?;
                    Ok((self.text(key)?, self.node(node, budget)?))
                };
                map.iter().map(entry).collect::<Result<_, _>>().map(Node::Map)
            }
        }
    }

    fn scalar(&self, scalar: &Scalar, budget: &mut usize) -> Result<Node, TemplateError> {
        spend(budget, scalar.text.len())?;
        if let Some(expression) = sole_expression(&scalar.text) {
            // Values hold no templates of their own that DVC would work out.
            let value = self.select(expression)?;
            charge(value, budget)?;
            return Ok(value.clone());
        }
        if !scalar.text.contains("${") {
            return Ok(Node::Scalar(scalar.clone()));
        }
        let text = self.text(&scalar.text)?;
        spend(budget, text.len())?;
        Ok(Node::string(text))
    }

    fn display(&self, expression: &str) -> Result<String, TemplateError> {
        match self.select(expression)?.as_scalar() {
            Some(scalar) if !scalar.is_null() => Ok(value::display(scalar)),
            _ => Err(TemplateError::NotText(shorten(expression))),
        }
    }

    /// The value that an expression such as `a.b[0]` names.
    fn select(&self, expression: &str) -> Result<&'a Node, TemplateError> {
        let expression = expression.trim();
        let each = self.each.and_then(|each| each.select(expression));
        let in_vars = || self.vars.iter().find_map(|vars| descend(vars, steps(expression)));
        each.or_else(in_vars).ok_or_else(|| TemplateError::Unresolved(shorten(expression)))
    }
}

impl<'a> Each<'a> {
    fn select(&'a self, expression: &str) -> Option<&'a Node> {
        let mut steps = steps(expression);
        match (steps.next()?, &self.item) {
            ("key", _) => self.key.as_ref().filter(|_| steps.next().is_none()),
            ("item", Item::One(node)) => steps.try_fold(*node, child),
            ("item", Item::Cell(cell)) => {
                let dimension = steps.next()?;
                let (_, node) = cell.iter().find(|(name, _)| *name == dimension)?;
                steps.try_fold(*node, child)
            }
            _ => None,
        }
    }
}

fn steps(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(['.', '[']).map(|step| step.trim_end_matches(']'))
}

fn descend<'a, 's>(vars: &'a Map, mut steps: impl Iterator<Item = &'s str>) -> Option<&'a Node> {
    let first = vars.get(steps.next()?)?;
    steps.try_fold(first, child)
}

/// The expression of a text that is nothing but one template.
fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${")?.strip_suffix('}')?;
    if inner.contains('}') { None } else { Some(inner) }
}

fn child<'a>(node: &'a Node, step: &str) -> Option<&'a Node> {
    match node {
        Node::Map(map) => map.get(step),
        Node::List(list) => list.get(step.parse::<usize>().ok()?),
        Node::Scalar(_) => None,
    }
}

/// Takes the cost of one node with `len` bytes of text from the budget.
fn spend(budget: &mut usize, len: usize) -> Result<(), TemplateError> {
    const NODE_COST: usize = 64;
    *budget = budget.checked_sub(NODE_COST + len).ok_or(TemplateError::TooLarge)?;
    Ok(())
}

/// Takes the cost of a copy of `node` from the budget, before the copy is made.
fn charge(node: &Node, budget: &mut usize) -> Result<(), TemplateError> {
    match node {
        Node::Scalar(scalar) => spend(budget, scalar.text.len()),
        Node::List(list) => list.iter().try_for_each(|node| charge(node, budget)),
        Node::Map(map) => map.iter().try_for_each(|(key, node)| {
            spend(budget, key.len())?;
            charge(node, budget)
        }),
    }
}

fn shorten(expression: &str) -> String {
    expression.trim().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dvc::yaml;

    fn vars() -> Map {
        let text =
            b"lr: 0.10\nnames: {dir: prepared}\nlist: [a, {b: [1, 2]}]\nnone: null\nyes: true\n";
        yaml::parse(text).unwrap().as_map().unwrap().clone()
    }

    fn text(template: &str) -> Result<String, TemplateError> {
        Scope { vars: &[&vars()], each: None }.text(template)
    }

    #[test]
    fn values_are_found_by_name_and_index() {
        assert_eq!(text("${names.dir}/x-${ lr }").unwrap(), "prepared/x-0.1");
        assert_eq!(text("${list[0]}${list[1].b[1]}${list.1.b.0}").unwrap(), "a21");
        assert_eq!(text("${yes}").unwrap(), "true");
    }

    #[test]
    fn escaped_and_open_templates_are_literal() {
        assert_eq!(text("\\${lr}-${lr}").unwrap(), "${lr}-0.1");
        assert_eq!(text("$lr ${lr").unwrap(), "$lr ${lr");
    }

    #[test]
    fn what_has_no_text_is_an_error() {
        assert_eq!(text("${nope}"), Err(TemplateError::Unresolved("nope".to_owned())));
        assert_eq!(
            text("${names.dir.x}"),
            Err(TemplateError::Unresolved("names.dir.x".to_owned()))
        );
        for expression in ["names", "list", "none"] {
            assert!(matches!(text(&format!("${{{expression}}}")), Err(TemplateError::NotText(_))));
        }
    }

    #[test]
    fn item_and_key_are_those_of_the_stage() {
        let (vars, one) = (vars(), Node::plain("7"));
        let each = Each { key: Some(Node::string("k")), item: Item::One(&one) };
        let scope = Scope { vars: &[&vars], each: Some(&each) };
        assert_eq!(scope.text("${key}${item}").unwrap(), "k7");
        let each = Each { key: None, item: Item::Cell(vec![("size", &one)]) };
        let scope = Scope { vars: &[&vars], each: Some(&each) };
        assert_eq!(scope.text("${item.size}").unwrap(), "7");
        assert!(scope.text("${item}${key}").is_err());
    }

    #[test]
    fn a_sole_template_keeps_the_type_of_its_value() {
        let vars = vars();
        let scope = Scope { vars: &[&vars], each: None };
        let node = scope.node(&Node::string("${list}"), &mut 10_000).unwrap();
        assert_eq!(node.as_list().unwrap().len(), 2);
        let node = scope.node(&Node::string("a${lr}"), &mut 10_000).unwrap();
        assert_eq!(node.text(), Some("a0.1"));
    }

    #[test]
    fn expansion_is_bounded() {
        let mut vars = Map::new();
        vars.insert("long".to_owned(), Node::string("x".repeat(4_500)));
        let scope = Scope { vars: &[&vars], each: None };
        assert_eq!(scope.text("${long}${long}"), Err(TemplateError::TooLarge));
        let many = Node::List(vec![Node::string("${long}"); 100]);
        assert_eq!(scope.node(&many, &mut 100_000), Err(TemplateError::TooLarge));
    }
}
