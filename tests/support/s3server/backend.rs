//! A folder as S3 objects.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_smithy_types::base64;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use md5::{Digest as _, Md5};
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        DeletedObject, ETag, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput,
        GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
        ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput, StreamingBlob,
        UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use super::listing;

/// How much of a file is read at once.
const CHUNK: u64 = 256 << 10;

/// Where parts and half-written objects wait, beside the buckets; no bucket has this name.
const WAITING: &str = ".uploads";

/// Marks a request whose range is to be ignored; without it, the signature would not fit.
#[derive(Clone)]
pub(super) struct WholeObject;

/// What a client says of the bytes it sends, in base64.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    md5: Option<String>,
    crc32: Option<String>,
}

/// Buckets as folders, objects as files.
pub(super) struct Folder {
    root: PathBuf,
    next: AtomicU64,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, next: AtomicU64::new(0) }
    }

    fn bucket(&self, bucket: &str) -> S3Result<PathBuf> {
        let path = self.root.join(bucket);
        if bucket == WAITING || !path.is_dir() {
            return Err(s3_error!(NoSuchBucket, "there is no bucket {bucket}"));
        }
        Ok(path)
    }

    fn path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let bucket = self.bucket(bucket)?;
        if key.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err(s3_error!(NoSuchKey, "no folder holds such a key"));
        }
        Ok(bucket.join(key))
    }

    /// A key that is also a folder is no object.
    fn open(&self, bucket: &str, key: &str) -> S3Result<(File, fs::Metadata)> {
        let missing = |_: io::Error| s3_error!(NoSuchKey, "there is no object {key}");
        let file = File::open(self.path(bucket, key)?).map_err(missing)?;
        let metadata = file.metadata().map_err(missing)?;
        if !metadata.is_file() {
            return Err(s3_error!(NoSuchKey, "there is no object {key}"));
        }
        Ok((file, metadata))
    }

    fn waiting(&self, name: &str) -> S3Result<PathBuf> {
        let folder = self.root.join(WAITING);
        fs::create_dir_all(&folder).map_err(internal)?;
        Ok(folder.join(name))
    }

    fn fresh(&self) -> String {
        format!("u{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Receives a body beside the buckets, so that no reader ever sees half of it.
    async fn receive(
        &self,
        name: &str,
        body: Option<StreamingBlob>,
        expected: Sums,
    ) -> S3Result<PathBuf> {
        let path = self.waiting(name)?;
        let half = self.waiting(&format!("{}.half", self.fresh()))?;
        let mut file = File::create(&half).map_err(internal)?;
        let (mut md5, mut crc) = (Md5::new(), crc32fast::Hasher::new());
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
                md5.update(&chunk);
                crc.update(&chunk);
                file.write_all(&chunk).map_err(internal)?;
            }
        }
        let arrived = Sums {
            md5: expected.md5.as_ref().map(|_| base64::encode(md5.finalize())),
            crc32: expected.crc32.as_ref().map(|_| base64::encode(crc.finalize().to_be_bytes())),
        };
        if arrived != expected {
            fs::remove_file(half).map_err(internal)?;
            return Err(s3_error!(BadDigest, "{arrived:?} arrived where {expected:?} were sent"));
        }
        fs::rename(half, &path).map_err(internal)?;
        Ok(path)
    }

    fn put_in_place(&self, from: &Path, bucket: &str, key: &str) -> S3Result<ETag> {
        let path = self.path(bucket, key)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(internal)?;
        }
        fs::rename(from, &path).map_err(internal)?;
        Ok(etag(&fs::metadata(&path).map_err(internal)?))
    }

    fn remove(&self, bucket: &str, key: &str) -> S3Result<()> {
        match fs::remove_file(self.path(bucket, key)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(internal(error)),
            _ => Ok(()),
        }
    }
}

/// Takes every `map_err`, hence by value.
#[allow(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn internal(error: io::Error) -> s3s::S3Error {
    s3_error!(InternalError, "{error}")
}

/// Changes whenever the file is written.
pub(super) fn etag(metadata: &fs::Metadata) -> ETag {
    let time = (metadata.mtime(), metadata.mtime_nsec());
    ETag::Strong(format!("{:x}-{:x}-{:x}-{:x}", time.0, time.1, metadata.len(), metadata.ino()))
}

pub(super) fn modified(metadata: &fs::Metadata) -> Option<s3s::dto::Timestamp> {
    metadata.modified().ok().map(Into::into)
}

/// Streams a part of a file.
fn stream_file(file: File, range: std::ops::Range<u64>) -> StreamingBlob {
    let file = Arc::new(file);
    StreamingBlob::wrap(stream::unfold(range, move |mut range| {
        let file = file.clone();
        async move {
            let mut buffer = vec![0; CHUNK.min(range.end - range.start) as usize];
            if buffer.is_empty() {
                return None;
            }
            let outcome = file.read_exact_at(&mut buffer, range.start);
            range.start += buffer.len() as u64;
            Some((outcome.map(|()| Bytes::from(buffer)), range))
        }
    }))
}

#[async_trait::async_trait]
impl S3 for Folder {
    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let (file, metadata) = self.open(&input.bucket, &input.key)?;
        let (size, etag) = (metadata.len(), etag(&metadata));
        let wanted = input.if_match.as_ref().and_then(|wanted| wanted.as_etag());
        if wanted.is_some_and(|wanted| *wanted != etag) {
            return Err(s3_error!(PreconditionFailed, "the object is another one now"));
        }
        let range = input.range.filter(|_| request.extensions.get::<WholeObject>().is_none());
        let (range, content_range) = match &range {
            None => (0..size, None),
            Some(range) => {
                let range = range.check(size)?;
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (range, Some(text))
            }
        };
        let is_partial = content_range.is_some();
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((range.end - range.start) as i64),
            content_range,
            e_tag: Some(etag),
            last_modified: modified(&metadata),
            body: Some(stream_file(file, range)),
            ..Default::default()
        };
        let mut response = S3Response::new(output);
        response.status = is_partial.then_some(http::StatusCode::PARTIAL_CONTENT);
        Ok(response)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let (_, metadata) = self.open(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(metadata.len() as i64),
            e_tag: Some(etag(&metadata)),
            last_modified: modified(&metadata),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        listing::list(&bucket, input).map(S3Response::new).map_err(internal)
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let target = self.path(&input.bucket, &input.key)?;
        if input.if_none_match.is_some() && target.is_file() {
            return Err(s3_error!(PreconditionFailed, "the object is there already"));
        }
        let checksum_crc32 = input.checksum_crc32.clone();
        let sums = Sums { md5: input.content_md5, crc32: input.checksum_crc32 };
        let received = self.receive(&self.fresh(), input.body, sums).await?;
        let e_tag = Some(self.put_in_place(&received, &input.bucket, &input.key)?);
        Ok(S3Response::new(PutObjectOutput { e_tag, checksum_crc32, ..Default::default() }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.remove(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            self.remove(&request.input.bucket, &object.key)?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        let output = DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() };
        Ok(S3Response::new(output))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(&request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        self.path(&input.bucket, &input.key)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(self.fresh()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let name = part_name(&input.upload_id, input.part_number)?;
        let checksum_crc32 = input.checksum_crc32.clone();
        let sums = Sums { md5: input.content_md5, crc32: input.checksum_crc32 };
        let part = self.receive(&name, input.body, sums).await?;
        let e_tag = Some(etag(&fs::metadata(part).map_err(internal)?));
        Ok(S3Response::new(UploadPartOutput { e_tag, checksum_crc32, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let is_there = self.path(&input.bucket, &input.key)?.is_file();
        if input.if_none_match.is_some() && is_there {
            return Err(s3_error!(PreconditionFailed, "the object is there already"));
        }
        let whole = self.waiting(&self.fresh())?;
        let mut file = File::create(&whole).map_err(internal)?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        for part in parts {
            let name = part_name(&input.upload_id, part.part_number.unwrap_or_default())?;
            let path = self.waiting(&name)?;
            let mut part =
                File::open(&path).map_err(|error| s3_error!(InvalidPart, "{name}: {error}"))?;
            part.seek(SeekFrom::Start(0)).map_err(internal)?;
            io::copy(&mut part, &mut file).map_err(internal)?;
            fs::remove_file(path).map_err(internal)?;
        }
        let e_tag = Some(self.put_in_place(&whole, &input.bucket, &input.key)?);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag,
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let prefix = part_name(&request.input.upload_id, 0)?;
        let prefix = prefix.trim_end_matches('0');
        for entry in fs::read_dir(self.root.join(WAITING)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                fs::remove_file(entry.path()).map_err(internal)?;
            }
        }
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

/// The file of one part; upload ids come from outside, so they are held to our own form.
fn part_name(upload: &str, part: i32) -> S3Result<String> {
    let is_ours = upload.strip_prefix('u').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if !is_ours {
        return Err(s3_error!(NoSuchUpload, "there is no upload {upload}"));
    }
    Ok(format!("{upload}.{part}"))
}
