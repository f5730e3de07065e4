//! `dvc.yaml`: the outputs of pipelines, with their hashes from the lock file beside it.
//!
//! Where the outputs lie is written in templates over variables. So the stages are first made, one
//! or many from each definition, then each path is worked out and looked up in the lock file,
//! which has it as the same text. Where a template cannot be worked out, what the lock file has
//! beyond the known outputs is taken instead.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::dvc::lockfile::Lock;
use crate::dvc::output::{Output, Stage, flag, text};
use crate::dvc::place::Base;
use crate::dvc::template::{Each, Item, Scope, TemplateError};
use crate::dvc::vars;
use crate::dvc::yaml::{self, Map, Node};
use crate::dvc::{BadEntry, Flaw, FormatError, Parsed, value};
use crate::path::RepoPath;

/// How many stages, outputs, lock entries and bits of 64 bytes of path are looked at; the rest is
/// left out.
const STEPS_MAX: usize = 500_000;
/// What the values of one `foreach` or `matrix` may cost in memory, in bytes.
const VALUES_MAX: usize = 32 << 20;
/// How many bytes of variables are read from other files.
const VARS_MAX: usize = 16 << 20;

/// Reads the `dvc.yaml` that lies in `file_dir` of the DVC project at `project_root`, with the
/// `dvc.lock` beside it.
///
/// `read` gives other files of the same commit. A broken lock makes the outputs unavailable, and
/// so does a missing entry; they are listed all the same.
pub fn parse(
    yaml: &[u8],
    lock: Option<&[u8]>,
    file_dir: &RepoPath,
    project_root: &RepoPath,
    read: &dyn Fn(&RepoPath) -> Option<Vec<u8>>,
) -> Result<Parsed, FormatError> {
    let mut file = mapping(yaml::parse(yaml)?)?;
    let stages = mapping(file.swap_remove("stages").unwrap_or_else(Node::null))?;
    let base = Base { file_dir, project_root };
    let left = Cell::new(VARS_MAX);
    let read = |path: &RepoPath| {
        let bytes = read(path)?;
        left.set(left.get().checked_sub(bytes.len() + 1)?);
        Some(bytes)
    };
    let mut vars = vars::import("params.yaml", base, None, &read).unwrap_or_default();
    vars::extend(&mut vars, file.get("vars"), base, None, &read);
    let pipeline = Pipeline::new(base, lock);
    let mut found = Found { parsed: Parsed::default(), steps_left: STEPS_MAX };
    for (name, definition) in &stages {
        let definition = Definition::new(name, definition);
        let added = definition.and_then(|definition| {
            let own = definition.vars(base, &vars, &read);
            pipeline.add(&definition, &[&own, &vars], &mut found)
        });
        if let Err(flaw) = added {
            found.parsed.bad.push(BadEntry::new(name.as_bytes(), flaw));
        }
    }
    Ok(found.parsed)
}

/// The mapping, an empty one for null.
fn mapping(node: Node) -> Result<Map, FormatError> {
    match node {
        Node::Map(map) => Ok(map),
        node if node.is_null() => Ok(Map::new()),
        _ => Err(FormatError::Shape("not a mapping")),
    }
}

/// An entry under `stages`, which stands for one stage or many.
struct Definition<'a> {
    name: &'a str,
    stage: &'a Map,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Single,
    Foreach(&'a Node),
    Matrix(&'a Node),
}

impl<'a> Definition<'a> {
    fn new(name: &'a str, node: &'a Node) -> Result<Self, Flaw> {
        let map = node.as_map().ok_or(Flaw::Shape("a stage that is not a mapping"))?;
        let (kind, stage) = match (map.get("foreach"), map.get("matrix")) {
            (Some(values), _) => (Kind::Foreach(values), map.get("do").and_then(Node::as_map)),
            (None, Some(values)) => (Kind::Matrix(values), Some(map)),
            (None, None) => (Kind::Single, Some(map)),
        };
        let stage = stage.ok_or(Flaw::Shape("`foreach` without `do`"))?;
        Ok(Self { name, stage, kind })
    }

    fn wdir(&self) -> Option<&'a str> {
        text(self.stage, "wdir")
    }

    /// The variables that the stage brings along, its files being relative to its `wdir`.
    fn vars(&self, base: Base<'_>, vars: &Map, read: vars::ReadFile<'_>) -> Map {
        let scope = Scope { vars: &[vars], each: None };
        let wdir = self.wdir().and_then(|wdir| scope.text(wdir).ok());
        let mut own = Map::new();
        vars::extend(&mut own, self.stage.get("vars"), base, wdir.as_deref(), read);
        own
    }
}

/// What was found so far, and how much more may be looked at.
struct Found {
    parsed: Parsed,
    steps_left: usize,
}

impl Found {
    fn spend(&mut self, steps: usize) -> Result<(), TemplateError> {
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(TemplateError::TooLarge)?;
        Ok(())
    }

    fn refuse(&mut self, what: &str, why: impl Into<Flaw>) {
        self.parsed.bad.push(BadEntry::new(what.as_bytes(), why));
    }
}

struct Pipeline<'a> {
    base: Base<'a>,
    lock: Lock,
    /// Why an output has no entry in the lock.
    missing: String,
}

impl<'a> Pipeline<'a> {
    fn new(base: Base<'a>, lock: Option<&[u8]>) -> Self {
        let (lock, missing) = match lock.map(Lock::parse) {
            None => (Lock::default(), "there is no dvc.lock: the stage was never run".to_owned()),
            Some(Ok(lock)) => (lock, "not in dvc.lock: the stage was never run".to_owned()),
            Some(Err(error)) => (Lock::default(), format!("dvc.lock cannot be read: {error}")),
        };
        Self { base, lock, missing }
    }

    /// Adds the outputs of all stages that `definition` stands for.
    fn add(&self, of: &Definition<'_>, vars: &[&Map], found: &mut Found) -> Result<(), Flaw> {
        let scope = Scope { vars, each: None };
        let values = match of.kind {
            Kind::Single => return Ok(self.stage(of.name, of.stage, scope, found)?),
            Kind::Foreach(values) | Kind::Matrix(values) => values,
        };
        let values = match scope.node(values, &mut VALUES_MAX.clone()) {
            Ok(values) => values,
            Err(error) => {
                self.infer_generated(of, found)?;
                return Err(error.into());
            }
        };
        match of.kind {
            Kind::Matrix(_) => self.matrix(of, &values, vars, found),
            _ => self.foreach(of, &values, vars, found),
        }
    }

    fn foreach(
        &self,
        of: &Definition<'_>,
        values: &Node,
        vars: &[&Map],
        found: &mut Found,
    ) -> Result<(), Flaw> {
        let mut add = |suffix: &str, key, node| {
            let each = Each { key, item: Item::One(node) };
            self.generated(of, suffix, &each, vars, found)
        };
        match values {
            Node::List(list) if list.iter().all(|node| node.as_scalar().is_some()) => {
                list.iter()
                    .try_for_each(|node| add(&suffix(node).unwrap_or_default(), None, node))?;
            }
            Node::List(list) => {
                let mut numbered = list.iter().enumerate();
                numbered.try_for_each(|(index, node)| add(&index.to_string(), None, node))?;
            }
            Node::Map(map) => {
                map.iter().try_for_each(|(key, node)| add(key, Some(Node::string(key)), node))?;
            }
            Node::Scalar(_) => return Err(Flaw::Shape("`foreach` over something that is no list")),
        }
        Ok(())
    }

    fn matrix(
        &self,
        of: &Definition<'_>,
        values: &Node,
        vars: &[&Map],
        found: &mut Found,
    ) -> Result<(), Flaw> {
        let dimensions = values.as_map().ok_or(Flaw::Shape("`matrix` is not a mapping"))?.iter();
        let dimensions = dimensions.map(|(name, list)| Some((name.as_str(), list.as_list()?)));
        let dimensions: Option<Vec<_>> = dimensions.collect();
        let dimensions =
            dimensions.ok_or(Flaw::Shape("`matrix` over something that is no list"))?;
        let mut lengths = dimensions.iter().map(|(_, list)| list.len());
        let cells = lengths.try_fold(1_usize, usize::checked_mul).ok_or(TemplateError::TooLarge)?;
        for index in 0..cells {
            found.spend(dimensions.len())?;
            let (key, cell) = cell(&dimensions, index);
            let each = Each { key: Some(Node::string(&key)), item: Item::Cell(cell) };
            self.generated(of, &key, &each, vars, found)?;
        }
        Ok(())
    }

    fn generated(
        &self,
        of: &Definition<'_>,
        suffix: &str,
        each: &Each<'_>,
        vars: &[&Map],
        found: &mut Found,
    ) -> Result<(), TemplateError> {
        let name = format!("{}@{suffix}", of.name);
        self.stage(&name, of.stage, Scope { vars, each: Some(each) }, found)
    }

    /// Adds the outputs of one stage. The error is that there are too many.
    fn stage(
        &self,
        name: &str,
        stage: &Map,
        scope: Scope<'_>,
        found: &mut Found,
    ) -> Result<(), TemplateError> {
        let wdir = match text(stage, "wdir").map(|wdir| scope.text(wdir)).transpose() {
            Ok(wdir) => wdir,
            Err(error) => {
                found.refuse(name, error);
                return found.spend(1);
            }
        };
        let wdir = wdir.as_deref();
        // Sorted, so that what is inferred comes in the same order every time.
        let mut locked: BTreeMap<_, _> = self.lock.outputs(name).into_iter().collect();
        found.spend(1 + locked.len())?;
        let mut is_complete = true;
        for declared in declared(stage) {
            found.spend(1)?;
            let Some((path, flags)) = declared else {
                found.refuse(name, Flaw::Shape("an output without path"));
                continue;
            };
            found.spend(path.len() / 64)?;
            match scope.text(path) {
                Ok(path) => {
                    let entry = locked.remove(path.as_str());
                    if let Some(output) = self.output((name, wdir), &path, entry, found) {
                        apply(output, flags, scope);
                    }
                }
                Err(error) => {
                    is_complete = false;
                    found.refuse(path, error);
                }
            }
        }
        if !is_complete {
            self.infer((name, wdir), locked, found);
        }
        Ok(())
    }

    /// Adds the output of a stage, named with its folder, that `entry` describes, if its place is
    /// sound, and returns it.
    fn output<'f>(
        &self,
        (stage, wdir): (&str, Option<&str>),
        path: &str,
        entry: Option<&Map>,
        found: &'f mut Found,
    ) -> Option<&'f mut Output> {
        match self.base.place(wdir, path) {
            Ok(place) => {
                let Parsed { outputs, bad } = &mut found.parsed;
                let output = match entry {
                    Some(entry) => Output::read(place, entry, bad),
                    None => Output::unavailable(place, &self.missing),
                };
                let folder = self.base.resolve(None, wdir.unwrap_or(".")).unwrap_or_default();
                let stage = Stage { name: stage.to_owned(), folder };
                outputs.push(Output { stage: Some(Box::new(stage)), ..output });
                outputs.last_mut()
            }
            Err(flaw) => {
                found.refuse(path, flaw);
                None
            }
        }
    }

    /// Adds outputs that only the lock file tells of.
    fn infer(&self, stage: (&str, Option<&str>), locked: BTreeMap<&str, &Map>, found: &mut Found) {
        for (path, entry) in locked {
            if let Some(output) = self.output(stage, path, Some(entry), found) {
                output.is_inferred = true;
            }
        }
    }

    /// Adds the outputs of generated stages as the lock file has them, unless they lie in a folder
    /// that nothing tells.
    fn infer_generated(&self, of: &Definition<'_>, found: &mut Found) -> Result<(), TemplateError> {
        let wdir = of.wdir();
        if wdir.is_some_and(|wdir| wdir.contains("${")) {
            return Ok(());
        }
        for stage in self.lock.generated_from(of.name) {
            let locked: BTreeMap<_, _> = self.lock.outputs(stage).into_iter().collect();
            found.spend(1 + locked.len())?;
            self.infer((stage, wdir), locked, found);
        }
        Ok(())
    }
}

/// Takes over what only `dvc.yaml` says of an output.
fn apply(output: &mut Output, flags: Option<&Map>, scope: Scope<'_>) {
    let Some(flags) = flags else { return };
    output.is_cached = flag(flags, "cache") != Some(false);
    output.is_pushed = flag(flags, "push") != Some(false);
    output.remote = text(flags, "remote")
        .and_then(|name| scope.text(name).ok())
        .map(|name| name.to_lowercase());
}

/// What the value of a generated stage adds to its name; nothing for lists and mappings.
fn suffix(node: &Node) -> Option<String> {
    node.as_scalar().map(value::display)
}

/// Cell `index` of a matrix, the last dimension running fastest, after its key.
fn cell<'a>(
    dimensions: &[(&'a str, &'a [Node])],
    mut index: usize,
) -> (String, Vec<(&'a str, &'a Node)>) {
    let mut keys = Vec::new();
    let mut cell = Vec::new();
    for (name, list) in dimensions.iter().rev() {
        let at = index % list.len();
        index /= list.len();
        keys.push(suffix(&list[at]).unwrap_or_else(|| format!("{name}{at}")));
        cell.push((*name, &list[at]));
    }
    keys.reverse();
    (keys.join("-"), cell)
}

/// The outputs a stage declares, as written: path and, where given, flags; nothing for an item
/// that is neither.
fn declared(stage: &Map) -> impl Iterator<Item = Option<(&str, Option<&Map>)>> {
    let lists =
        ["outs", "metrics", "plots"].into_iter().filter_map(|key| stage.get(key)?.as_list());
    lists.flatten().flat_map(|item| -> Vec<_> {
        match item {
            Node::Map(map) => {
                map.iter().map(|(path, flags)| Some((path.as_str(), flags.as_map()))).collect()
            }
            item => vec![item.text().map(|path| (path, None))],
        }
    })
}

#[cfg(test)]
mod tests;
