//! Listing a bucket, page by page.

use std::{collections::BTreeSet, fs, io, path::Path};

use s3s::dto::{CommonPrefix, ListObjectsV2Input, ListObjectsV2Output, Object};

use super::backend::{etag, modified};

/// One page: at most a thousand rows after the last one of the page before.
pub(super) fn list(bucket: &Path, input: ListObjectsV2Input) -> io::Result<ListObjectsV2Output> {
    let prefix = input.prefix.clone().unwrap_or_default();
    let most = input.max_keys.unwrap_or(1000).clamp(0, 1000) as usize;
    let after = input.continuation_token.clone().or(input.start_after.clone());
    // As with Amazon, an empty one is none.
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let mut rows: Vec<Row> = keys(bucket, &prefix)?
        .iter()
        .map(|key| Row::new(key, &prefix, delimiter))
        .filter(|row| after.as_deref().is_none_or(|after| row.name() > after))
        .collect();
    rows.dedup();
    let is_truncated = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().map(|row| row.name().to_owned());
    let mut page = ListObjectsV2Output {
        key_count: Some(rows.len() as i32),
        is_truncated: Some(is_truncated),
        next_continuation_token: last.filter(|_| is_truncated),
        max_keys: Some(most as i32),
        name: Some(input.bucket),
        prefix: Some(prefix),
        delimiter: input.delimiter,
        continuation_token: input.continuation_token,
        ..Default::default()
    };
    for row in rows {
        match row {
            Row::Folder(name) => {
                let folder = CommonPrefix { prefix: Some(name) };
                page.common_prefixes.get_or_insert_default().push(folder);
            }
            Row::Object(key) => {
                page.contents.get_or_insert_default().push(object(bucket, key)?);
            }
        }
    }
    Ok(page)
}

fn object(bucket: &Path, key: String) -> io::Result<Object> {
    let metadata = fs::metadata(bucket.join(&key))?;
    Ok(Object {
        e_tag: Some(etag(&metadata)),
        last_modified: modified(&metadata),
        size: Some(metadata.len() as i64),
        key: Some(key),
        ..Default::default()
    })
}

/// An object, or a folder that stands for all below it.
#[derive(PartialEq)]
enum Row {
    Object(String),
    Folder(String),
}

impl Row {
    fn new(key: &str, prefix: &str, delimiter: Option<&str>) -> Self {
        let rest = &key[prefix.len()..];
        match delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len())) {
            Some(end) => Self::Folder(key[..prefix.len() + end].to_owned()),
            None => Self::Object(key.to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Object(name) | Self::Folder(name) => name,
        }
    }
}

/// Every key of a bucket that begins with `prefix`, in order.
fn keys(bucket: &Path, prefix: &str) -> io::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    // The part of the prefix that is whole folders saves walking the others.
    let start = prefix.rsplit_once('/').map_or("", |(folders, _)| folders);
    let mut folders = vec![start.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(bucket.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if entry.file_type()?.is_dir() {
                folders.push(key);
            } else if key.starts_with(prefix) {
                keys.insert(key);
            }
        }
    }
    Ok(keys)
}
