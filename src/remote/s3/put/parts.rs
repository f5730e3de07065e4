//! Large objects, in parts that are sent several at a time.
//!
//! What a note tells of an upload that was cut off is taken up again: the server has checked its
//! parts, and the object's name says that the bytes are the same. Whoever else puts the same object
//! meanwhile has an upload of their own; one of both ends first, and the other finds it there.

use std::{collections::BTreeMap, ops::Range};

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_types::base64;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{
    Request, Sending, Wishes, crc_text,
    notes::{self, Part, Upload},
};
use crate::{
    id::Key,
    remote::{
        Cause, Put, Remote as _, RemoteError, Source, put_action,
        s3::{
            S3Remote,
            connector::Moves,
            errors::{Failure, upload_id},
        },
    },
};

/// The least bytes of a part.
const PART: u64 = 16 << 20;

/// The most parts an upload may have; servers stop at 10,000.
const MOST: u64 = 9000;

/// The parts that a server has, by number.
type Parts = BTreeMap<i32, Part>;

impl S3Remote {
    pub(super) async fn put_in_parts(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        let (action, object) = (put_action(key), self.object_name(key));
        let mut known = self.taken_up(&object, source).await;
        loop {
            let is_known = known.is_some();
            let (upload, parts) = match known.take() {
                Some(known) => known,
                None => (self.begin_upload(&action, &object, source).await?, Parts::new()),
            };
            let put = self.finish_upload(&action, &upload, parts, source).await;
            if source.note().is_none() && put.is_err() {
                // Nobody would take it up again.
                self.abort(&upload).await;
            }
            if let Some(put) = put? {
                if put == Put::Present {
                    self.abort(&upload).await;
                }
                notes::remove(source).await;
                return Ok(put);
            }
            // The server does not know the upload, or not all its parts: someone ended it.
            notes::remove(source).await;
            match self.size(key).await {
                Ok(_) => return Ok(Put::Present),
                Err(error) if error.cause != Cause::Missing => return Err(error),
                Err(_) if is_known => self.abort(&upload).await,
                Err(_) => {
                    let reason = "the server has lost the parts of an upload under way";
                    return Err(self.error(Cause::Unreachable, &action, reason));
                }
            }
        }
    }

    /// The upload of this object that was cut off.
    async fn taken_up(&self, object: &str, source: &Source) -> Option<(Upload, Parts)> {
        let (upload, parts) = notes::read(source).await?;
        let is_the_same = upload.url == self.url()
            && upload.object == object
            && upload.size == source.size()
            && upload.part == part_size(source.size());
        if !is_the_same {
            self.abort(&upload).await;
            notes::remove(source).await;
            return None;
        }
        Some((upload, parts.into_iter().map(|part| (part.number, part)).collect()))
    }

    async fn begin_upload(
        &self,
        action: &str,
        object: &str,
        source: &Source,
    ) -> Result<Upload, RemoteError> {
        let customer = self.0.customer_key.as_ref();
        let request = |wishes: Wishes, _moves: Moves| -> Request<'_, _> {
            Box::pin(async move {
                let begun = self.send(action, |client| {
                    client
                        .create_multipart_upload()
                        .bucket(&self.0.settings.bucket)
                        .key(object)
                        .set_checksum_algorithm(
                            wishes.has_crc().then_some(ChecksumAlgorithm::Crc32),
                        )
                        .set_sse_customer_algorithm(customer.map(|it| it.algorithm.clone()))
                        .set_sse_customer_key(customer.map(|it| it.key.clone()))
                        .set_sse_customer_key_md5(customer.map(|it| it.md5.clone()))
                        .send()
                });
                Ok(match begun.await? {
                    Ok(begun) => Ok(begun.upload_id),
                    Err(error) => match upload_id(&error) {
                        Some(id) => Ok(Some(id)),
                        None => Err(Failure::new(&error)),
                    },
                })
            })
        };
        let begun = self.insist(action, request).await?;
        let begun = begun.map_err(|failure| self.not_put(action, failure))?;
        let id = begun.ok_or_else(|| {
            self.error(Cause::Misconfigured, action, "the server gives no name to an upload")
        })?;
        let (url, object) = (self.url().to_owned(), object.to_owned());
        let size = source.size();
        let upload = Upload { url, object, size, part: part_size(size), id };
        notes::begin(source, &upload).await;
        Ok(upload)
    }

    /// Sends what is missing and has the server put it together; nothing if the server knows
    /// nothing of it.
    async fn finish_upload(
        &self,
        action: &str,
        upload: &Upload,
        mut parts: Parts,
        source: &Source,
    ) -> Result<Option<Put>, RemoteError> {
        let ranges: Vec<_> = (1..).zip(ranges(upload)).collect();
        for (_, range) in ranges.iter().filter(|(number, _)| parts.contains_key(number)) {
            source.tell((range.end - range.start) as i64);
        }
        let missing: Vec<_> =
            ranges.into_iter().filter(|(number, _)| !parts.contains_key(number)).collect();
        let sent = missing.into_iter().map(|(number, range)| {
            self.put_part(action, upload, number, Sending::new(source, range)).boxed()
        });
        let sent: Vec<_> = sent.collect();
        let mut sent = stream::iter(sent).buffer_unordered(source.at_once().get());
        while let Some(part) = sent.next().await {
            let Some(part) = part? else { return Ok(None) };
            notes::add(source, &part).await;
            parts.insert(part.number, part);
        }
        drop(sent);
        self.complete(action, upload, &parts).await
    }

    async fn put_part(
        &self,
        action: &str,
        upload: &Upload,
        number: i32,
        sending: Sending,
    ) -> Result<Option<Part>, RemoteError> {
        let customer = self.0.customer_key.as_ref();
        let range = sending.range.clone();
        let sums = sending.source.sums(range.clone(), true).await;
        let (crc, md5) = sums.map_err(|error| self.unreadable(action, error))?;
        let md5 = md5.map(base64::encode);
        let (range, md5, sending) = (&range, &md5, &sending);
        let request = |wishes: Wishes, moves: Moves| -> Request<'_, _> {
            Box::pin(async move {
                let sent = self.send(action, |client| {
                    let moves = moves.clone();
                    client
                        .upload_part()
                        .bucket(&self.0.settings.bucket)
                        .key(&upload.object)
                        .upload_id(&upload.id)
                        .part_number(number)
                        .content_length((range.end - range.start) as i64)
                        .set_content_md5(md5.clone())
                        .set_checksum_crc32(wishes.has_crc().then(|| crc_text(crc)))
                        .set_sse_customer_algorithm(customer.map(|it| it.algorithm.clone()))
                        .set_sse_customer_key(customer.map(|it| it.key.clone()))
                        .set_sse_customer_key_md5(customer.map(|it| it.md5.clone()))
                        .body(sending.body(&moves))
                        .customize()
                        .mutate_request(move |request| request.add_extension(moves.clone()))
                        .send()
                });
                Ok(sent.await?.map_err(|error| Failure::new(&error)))
            })
        };
        match self.insist(action, request).await? {
            Ok(output) => {
                let (etag, crc) = (output.e_tag, output.checksum_crc32);
                Ok(Some(Part { number, etag, crc }))
            }
            Err(failure) => {
                sending.forget();
                if failure.is_of_lost_upload() {
                    Ok(None)
                } else {
                    Err(self.not_put(action, failure))
                }
            }
        }
    }

    async fn complete(
        &self,
        action: &str,
        upload: &Upload,
        parts: &Parts,
    ) -> Result<Option<Put>, RemoteError> {
        let all = parts.values().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .set_e_tag(part.etag.clone())
                .set_checksum_crc32(part.crc.clone())
                .build()
        });
        let all = CompletedMultipartUpload::builder().set_parts(Some(all.collect())).build();
        let all = &all;
        let request = |wishes: Wishes, moves: Moves| -> Request<'_, _> {
            Box::pin(async move {
                let completed = Box::pin(self.send(action, |client| {
                    let moves = moves.clone();
                    client
                        .complete_multipart_upload()
                        .bucket(&self.0.settings.bucket)
                        .key(&upload.object)
                        .upload_id(&upload.id)
                        .set_if_none_match(wishes.is_conditional().then(|| "*".to_owned()))
                        .multipart_upload(all.clone())
                        .customize()
                        .mutate_request(move |request| request.add_extension(moves.clone()))
                        .send()
                }));
                let completed = moves.while_waiting(self.in_time(action, completed)).await?;
                Ok(completed.map_err(|error| Failure::new(&error)))
            })
        };
        match self.insist(action, request).await? {
            Ok(_) => Ok(Some(Put::Stored)),
            Err(failure) if failure.status == Some(412) => Ok(Some(Put::Present)),
            Err(failure) if failure.is_of_lost_upload() => Ok(None),
            Err(failure) => Err(self.not_put(action, failure)),
        }
    }

    /// Has the server drop the parts of an upload, if it will.
    async fn abort(&self, upload: &Upload) {
        let action = format!("give up the upload of {} to", upload.object);
        let aborted = Box::pin(self.send(&action, |client| {
            client
                .abort_multipart_upload()
                .bucket(&self.0.settings.bucket)
                .key(&upload.object)
                .upload_id(&upload.id)
                .send()
        }));
        match self.in_time(&action, aborted).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("{action}: {}", Failure::new(&error).reason),
            Err(error) => tracing::debug!("{error}"),
        }
    }
}

fn part_size(size: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    PART.max(size.div_ceil(MOST).next_multiple_of(MIB))
}

fn ranges(upload: &Upload) -> impl Iterator<Item = Range<u64>> {
    let (size, part) = (upload.size, upload.part);
    (0..size.div_ceil(part)).map(move |n| n * part..size.min((n + 1) * part))
}

#[cfg(test)]
mod tests {
    use super::{super::LARGEST, *};

    #[test]
    fn parts_cover_an_object_and_are_few_enough() {
        for size in [LARGEST + 1, 150 << 20, 5 << 40] {
            let part = part_size(size);
            let upload =
                Upload { url: String::new(), object: String::new(), size, part, id: String::new() };
            let (mut count, mut end) = (0, 0);
            for range in ranges(&upload) {
                assert_eq!(range.start, end);
                (count, end) = (count + 1, range.end);
            }
            assert_eq!(end, size);
            assert!(count <= 10_000, "{count} parts of {part}");
        }
        assert_eq!(part_size(100 << 20), PART);
    }
}
