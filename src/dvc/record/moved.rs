//! The `.dvc` files of outputs that were renamed.

use super::{
    Base, Map, OUTPUT_ORDER, RecordError, Recorded, Value, document, drop_silent, in_order, read,
    replace_content, takes_something_in, update_stage,
};
use crate::dvc::document::Kind;
use crate::dvc::{FormatError, json, md5::Md5, output::text, yaml};
use crate::id::hex;
use crate::path::RepoPath;

/// Writes the `.dvc` file of an output anew that was at `from` and is called `name` now, beside the
/// new file: with all that the old one says of it, as by `dvc move`; nothing if that is the file of
/// a stage or an import.
///
/// The old file lies in `file_dir` of the DVC project at `project_root`.
pub fn rename(
    bytes: &[u8],
    (file_dir, project_root): (&RepoPath, &RepoPath),
    (from, name): (&RepoPath, &str),
    content: &Recorded,
) -> Result<Option<String>, RecordError> {
    const STAGE_ORDER: [&str; 5] = ["desc", "frozen", "outs", "always_changed", "meta"];
    let mut document = read(bytes)?;
    let stage = document.as_map_mut().ok_or(FormatError::Shape("not a mapping"))?;
    if takes_something_in(stage) {
        return Ok(None);
    }
    let base = Base { file_dir, project_root };
    let wdir = stage.get("wdir").and_then(|wdir| wdir.as_scalar()?.as_str()).map(str::to_owned);
    let is_it = |output: &&mut Map| {
        let path = output.get("path").and_then(|path| path.as_scalar()?.as_str());
        base.place(wdir.as_deref(), path.unwrap_or_default()).as_ref() == Ok(from)
    };
    let outputs = stage.get_mut("outs").and_then(Value::as_list_mut);
    let outputs = outputs.ok_or(FormatError::Shape("`outs` is not a list"))?;
    let output = outputs.iter_mut().filter_map(Value::as_map_mut).find(is_it);
    let output = output.ok_or_else(|| RecordError::Absent(from.clone()))?;
    replace_content(output, content, name, from.clone())?;
    drop_silent(output);
    let output = in_order(output, &OUTPUT_ORDER);
    outputs.replace([output]);
    stage.remove("wdir");
    update_stage(stage, None, base);
    Ok(Some(document::compose(&in_order(stage, &STAGE_ORDER))))
}

/// Whether a `.dvc` file names where its data is from by the way there from its own folder, so that
/// it means something else in another one.
pub fn is_bound_to_folder(bytes: &[u8]) -> bool {
    let stage = yaml::parse(bytes).ok();
    let dependencies = stage.as_ref().and_then(|stage| stage.as_map()?.get("deps")?.as_list());
    dependencies.unwrap_or_default().iter().filter_map(yaml::Node::as_map).any(|dependency| {
        let path = text(dependency, "path").unwrap_or_default();
        !dependency.contains_key("repo") && !path.starts_with('/') && !path.contains("://")
    })
}

/// The hash of what a file says, by which DVC tells whether it was changed by hand.
pub(super) fn stage_md5(stage: &Map) -> String {
    let mut stage = stage.clone();
    stage.remove("md5");
    let mut text = String::new();
    push_json(&mut text, &Value::Map(stage).plain());
    hex(&Md5::of(text.as_bytes()))
}

/// Writes a value as Python does, without the keys that do not count in a hash.
fn push_json(text: &mut String, value: &Value) {
    const NOT_COUNTED: [&str; 11] = [
        "desc", "type", "labels", "meta", "locked", "frozen", "metric", "persist", "isexec",
        "size", "nfiles",
    ];
    match value {
        Value::Scalar(scalar) => match (scalar.as_str(), scalar.kind()) {
            (Some(string), _) => json::push_quoted(text, string.as_bytes()),
            (None, Kind::Null) => text.push_str("null"),
            (None, _) => text.push_str(scalar.text()),
        },
        Value::List(list) => {
            text.push('[');
            for (at, value) in list.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                push_json(text, value);
            }
            text.push(']');
        }
        Value::Map(map) => {
            let mut keys: Vec<_> = map.keys().filter(|key| !NOT_COUNTED.contains(key)).collect();
            keys.sort_unstable();
            text.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                json::push_quoted(text, key.as_bytes());
                text.push_str(": ");
                map.get(key).into_iter().for_each(|value| push_json(text, value));
            }
            text.push('}');
        }
    }
}
