//! What a bucket has, and how it is listed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, Metadata},
    io,
    ops::{Bound, Range},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use parking_lot::RwLock;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::{
    OffsetDateTime,
    format_description::well_known::{Rfc2822, Rfc3339},
};

use super::Query;

/// Objects in one page of a listing.
const PAGE: usize = 1000;

/// What stays as it is in names that are to be encoded.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Objects by their names.
pub(crate) struct Bucket(RwLock<BTreeMap<String, Object>>);

/// What is told of an object.
#[derive(Clone, Copy)]
pub(crate) struct Object {
    pub(crate) size: u64,
    modified: i64,
    inode: u64,
}

impl Object {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self { size: file.len(), modified: file.mtime(), inode: file.ino() }
    }

    /// Ends as the tag of several parts does, so that no client takes it for an MD5.
    pub(crate) fn tag(&self) -> String {
        format!("{:016x}{:016x}-1", self.inode, self.size)
    }

    pub(crate) fn http_date(&self) -> String {
        self.modified().format(&Rfc2822).unwrap().replace("+0000", "GMT")
    }

    fn modified(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.modified).unwrap()
    }

    /// Reads `bytes=2-5`, `bytes=2-` or `bytes=-5`; nothing where no byte of it is there.
    pub(crate) fn range(&self, text: &str) -> Option<Range<u64>> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let range = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1).min(self.size),
            (Ok(first), Err(_)) => first..self.size,
            (Err(_), Ok(count)) => self.size.saturating_sub(count)..self.size,
            (Err(_), Err(_)) => return None,
        };
        (!range.is_empty()).then_some(range)
    }
}

impl Bucket {
    /// Looks up what a folder has.
    pub(crate) fn scan(root: &Path) -> Self {
        let mut objects = BTreeMap::new();
        scan(root, "", &mut objects).unwrap();
        Self(RwLock::new(objects))
    }

    pub(crate) fn object(&self, key: &str) -> Option<Object> {
        self.0.read().get(key).copied()
    }

    pub(crate) fn put(&self, key: &str, object: Object) {
        self.0.write().insert(key.to_owned(), object);
    }

    /// One page, in the first or the second version of the protocol.
    pub(crate) fn list(&self, name: &str, query: &Query) -> String {
        let word = |name: &str| query.get(name).map_or("", String::as_str);
        let is_second = word("list-type") == "2";
        let (prefix, delimiter) = (word("prefix"), word("delimiter"));
        let most = word("max-keys").parse().unwrap_or(PAGE).min(PAGE);
        let is_encoded = word("encoding-type") == "url";
        let encoded = |text: &str| {
            if is_encoded { utf8_percent_encode(text, PLAIN).to_string() } else { text.to_owned() }
        };
        let begin = ["continuation-token", "start-after", "marker"].map(word);
        let begin = begin.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        let mut page = Page::default();
        let mut from = Bound::Included(prefix.max(begin).to_owned());
        if begin >= prefix && !begin.is_empty() {
            from = behind(begin, delimiter);
        }
        let objects = self.0.read();
        while let Some((key, object)) = objects.range((from, Bound::Unbounded)).next() {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            if page.count == most {
                page.is_truncated = true;
                break;
            }
            page.count += 1;
            let group = rest.split_once(delimiter).filter(|_| !delimiter.is_empty());
            page.last = if let Some((group, _)) = group {
                let group = format!("{prefix}{group}{delimiter}");
                page.group(&encoded(&group));
                group
            } else {
                page.object(&encoded(key), object);
                key.clone()
            };
            from = behind(&page.last, delimiter);
        }
        let Page { count, last, is_truncated, rows } = page;
        let next = match (is_truncated, is_second) {
            (false, _) => String::new(),
            (true, true) => format!("<NextContinuationToken>{last}</NextContinuationToken>"),
            (true, false) => format!("<NextMarker>{}</NextMarker>", encoded(&last)),
        };
        let encoding = if is_encoded { "<EncodingType>url</EncodingType>" } else { "" };
        format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>{name}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount>\
             <MaxKeys>{most}</MaxKeys><Delimiter>{delimiter}</Delimiter>\
             {encoding}<IsTruncated>{is_truncated}</IsTruncated>\
             {next}{rows}</ListBucketResult>",
            encoded(prefix),
        )
    }
}

/// Where a listing goes on: behind an object, or behind all of a group.
fn behind(last: &str, delimiter: &str) -> Bound<String> {
    if !delimiter.is_empty() && last.ends_with(delimiter) {
        Bound::Included(format!("{last}\u{10ffff}"))
    } else {
        Bound::Excluded(last.to_owned())
    }
}

#[derive(Default)]
struct Page {
    count: usize,
    last: String,
    is_truncated: bool,
    rows: String,
}

impl Page {
    fn group(&mut self, name: &str) {
        write!(self.rows, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>").unwrap();
    }

    fn object(&mut self, name: &str, object: &Object) {
        let date = object.modified().format(&Rfc3339).unwrap();
        let (tag, size) = (object.tag(), object.size);
        write!(
            self.rows,
            "<Contents><Key>{name}</Key><LastModified>{date}</LastModified>\
             <ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>"
        )
        .unwrap();
    }
}

fn scan(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, Object>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            scan(&entry.path(), &format!("{name}/"), objects)?;
        } else {
            objects.insert(name, Object::of(&metadata));
        }
    }
    Ok(())
}
