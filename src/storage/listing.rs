//! Listings, page by page. One that is cut short is an error: a shorter list would pass for less in the bucket.

use std::ops::ControlFlow;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use jiff::Timestamp;

use super::{Bucket, Cause, Object, StorageError, UnfinishedUpload};

/// S3 may give pages without a key where many were deleted, but not without end.
const MOST_EMPTY: u32 = 1000;

impl Bucket {
    /// Every object whose key starts with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        let mut objects = Vec::new();
        let each = |object| {
            objects.push(object);
            ControlFlow::Continue(())
        };
        self.list_each(prefix, None, each).await?;
        Ok(objects)
    }

    /// Hands every object whose key starts with `prefix`, and comes after `after`, to `each`, until that breaks off.
    ///
    /// One page at a time is held in memory. `after` need not be the key of an object.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn list_each(
        &self,
        prefix: &str,
        after: Option<String>,
        mut each: impl FnMut(Object) -> ControlFlow<()> + Send,
    ) -> Result<(), StorageError> {
        let mut keys = Ascending::default();
        let (mut token, mut empty) = (None, 0);
        loop {
            let request = self.client.list_objects_v2().bucket(&self.name);
            let request = request.prefix(prefix).set_start_after(after.clone());
            let page = request.set_continuation_token(token.clone()).send().await;
            let page = page.map_err(|e| self.failed("list", prefix, e))?;
            for listed in page.contents() {
                let object = object(listed).and_then(|object| {
                    keys.take(&object.key)?;
                    Ok(object)
                });
                let object = object.map_err(|why| self.cut_short(prefix, why))?;
                if each(object).is_break() {
                    return Ok(());
                }
            }
            let next = judge_page(&Page::from(&page), token.as_deref(), &mut empty);
            match next.map_err(|why| self.cut_short(prefix, why))? {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The "folders" directly below `prefix` (which ends in `/`), without their trailing slash, and the objects there.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn list_level(
        &self,
        prefix: &str,
    ) -> Result<(Vec<String>, Vec<Object>), StorageError> {
        let (mut folders, mut objects) = (Vec::new(), Vec::new());
        let (mut keys, mut prefixes) = (Ascending::default(), Ascending::default());
        let (mut token, mut empty) = (None, 0);
        loop {
            let request = self.client.list_objects_v2().bucket(&self.name);
            let request = request.prefix(prefix).delimiter("/");
            let page = request.set_continuation_token(token.clone()).send().await;
            let page = page.map_err(|e| self.failed("list", prefix, e))?;
            let common = page.common_prefixes().iter();
            let read = || {
                for folder in common.filter_map(|common| common.prefix()) {
                    prefixes.take(folder)?;
                    folders.push(folder.trim_end_matches('/').to_owned());
                }
                for listed in page.contents() {
                    let object = object(listed)?;
                    keys.take(&object.key)?;
                    objects.push(object);
                }
                judge_page(&Page::from(&page), token.as_deref(), &mut empty)
            };
            match read().map_err(|why| self.cut_short(prefix, why))? {
                Some(next) => token = Some(next),
                None => return Ok((folders, objects)),
            }
        }
    }

    /// Uploads below `prefix` that were neither completed nor aborted: they cost money and no listing shows them.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn unfinished_uploads(
        &self,
        prefix: &str,
    ) -> Result<Vec<UnfinishedUpload>, StorageError> {
        let mut uploads = Vec::new();
        let mut from: (Option<String>, Option<String>) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.name);
            let request = request.prefix(prefix).set_key_marker(from.0.clone());
            let page = request.set_upload_id_marker(from.1.clone()).send().await;
            let page = page.map_err(|e| self.failed("list the uploads of", prefix, e))?;
            for upload in page.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else {
                    continue;
                };
                // Some servers take the prefix for a hint.
                if key.starts_with(prefix) {
                    uploads.push(UnfinishedUpload {
                        key: key.to_owned(),
                        upload_id: id.to_owned(),
                        initiated: upload.initiated().map_or(Timestamp::UNIX_EPOCH, timestamp),
                    });
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(uploads);
            }
            let marker =
                |marker: Option<&str>| marker.filter(|it| !it.is_empty()).map(str::to_owned);
            let next = (
                marker(page.next_key_marker()),
                marker(page.next_upload_id_marker()),
            );
            if next.0.is_none() || next == from {
                let why = "more uploads are announced, without a way to them".to_owned();
                return Err(self.cut_short(prefix, why));
            }
            from = next;
        }
    }

    fn cut_short(&self, prefix: &str, why: String) -> StorageError {
        StorageError::of("list", &self.name, prefix, Cause::CutShort(why))
    }
}

/// What a page of a listing says of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Page<'a> {
    is_truncated: Option<bool>,
    next_token: Option<&'a str>,
    /// How many keys and folders it says that it has.
    announced: Option<i32>,
    listed: usize,
}

impl<'a> From<&'a ListObjectsV2Output> for Page<'a> {
    fn from(page: &'a ListObjectsV2Output) -> Self {
        Self {
            is_truncated: page.is_truncated(),
            next_token: page.next_continuation_token(),
            announced: page.key_count(),
            listed: page.contents().len() + page.common_prefixes().len(),
        }
    }
}

/// The token of the page after `page`, which `token` led to; `None` after the last page. The error says what is missing.
///
/// `empty` counts the pages in a row that hold nothing.
fn judge_page(
    page: &Page<'_>,
    token: Option<&str>,
    empty: &mut u32,
) -> Result<Option<String>, String> {
    *empty = if page.listed == 0 { *empty + 1 } else { 0 };
    if *empty > MOST_EMPTY {
        return Err(format!(
            "{MOST_EMPTY} pages in a row hold nothing, and lead on"
        ));
    }
    let announced = page.announced.and_then(|count| usize::try_from(count).ok());
    if let Some(announced) = announced.filter(|announced| *announced > page.listed) {
        return Err(format!(
            "a page of {announced} keys holds {} of them",
            page.listed
        ));
    }
    let next = page.next_token.filter(|next| !next.is_empty());
    match (page.is_truncated, next) {
        (_, Some(next)) if Some(next) == token => {
            Err("a page leads to itself as the next one".to_owned())
        }
        // Some servers give the token without the word.
        (_, Some(next)) => Ok(Some(next.to_owned())),
        (Some(true), None) => Err("more keys are announced, without a way to them".to_owned()),
        (Some(false), None) => Ok(None),
        (None, None) => Err("a page does not say whether it is the last one".to_owned()),
    }
}

/// Keys in the order that S3 documents, each one once: pages that repeat or go back were put together wrongly.
#[derive(Debug, Default)]
struct Ascending {
    last: Option<String>,
}

impl Ascending {
    fn take(&mut self, key: &str) -> Result<(), String> {
        if let Some(last) = self.last.as_deref().filter(|last| *last >= key) {
            return Err(format!("{key} is listed after {last}"));
        }
        self.last = Some(key.to_owned());
        Ok(())
    }
}

fn object(listed: &aws_sdk_s3::types::Object) -> Result<Object, String> {
    let key = listed.key().ok_or("an object has no key")?;
    let size = listed.size().and_then(|size| size.try_into().ok());
    Ok(Object {
        key: key.to_owned(),
        size: size.ok_or_else(|| format!("{key} has no size"))?,
        last_modified: listed
            .last_modified()
            .map(timestamp)
            .ok_or_else(|| format!("{key} has no time"))?,
        tag: listed.e_tag().unwrap_or_default().to_owned(),
    })
}

fn timestamp(time: &aws_sdk_s3::primitives::DateTime) -> Timestamp {
    let nanoseconds = i32::try_from(time.subsec_nanos()).unwrap_or_default();
    Timestamp::new(time.secs(), nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_is_cut_short_is_no_list() {
        let page = |is_truncated, next_token, announced, listed| Page {
            is_truncated,
            next_token,
            announced,
            listed,
        };
        let more = Ok(Some("b".to_owned()));
        for (what, page, expected) in [
            (
                "the last page",
                page(Some(false), None, Some(2), 2),
                Ok(None),
            ),
            (
                "an empty bucket",
                page(Some(false), None, Some(0), 0),
                Ok(None),
            ),
            (
                "without a count",
                page(Some(false), None, None, 2),
                Ok(None),
            ),
            (
                "one of many",
                page(Some(true), Some("b"), Some(2), 2),
                more.clone(),
            ),
            (
                "a token alone",
                page(None, Some("b"), Some(2), 2),
                more.clone(),
            ),
            (
                "folders that are not counted",
                page(Some(false), None, Some(1), 3),
                Ok(None),
            ),
            (
                "a page without keys that leads on",
                page(Some(true), Some("b"), Some(0), 0),
                more,
            ),
            (
                "no token",
                page(Some(true), None, Some(2), 2),
                Err("without a way"),
            ),
            (
                "an empty token",
                page(Some(true), Some(""), Some(2), 2),
                Err("without a way"),
            ),
            (
                "the same token",
                page(Some(true), Some("a"), Some(2), 2),
                Err("to itself"),
            ),
            (
                "fewer keys",
                page(Some(false), None, Some(23), 2),
                Err("of 23 keys holds 2"),
            ),
            ("no end", page(None, None, None, 0), Err("the last one")),
        ] {
            match (judge_page(&page, Some("a"), &mut 0), expected) {
                (Err(reason), Err(words)) => assert!(reason.contains(words), "{what}: {reason}"),
                (judged, expected) => {
                    assert_eq!(judged, expected.map_err(str::to_owned), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_listing_of_empty_pages_ends() {
        let page = Page {
            is_truncated: Some(true),
            next_token: Some("b"),
            ..Page::default()
        };
        let mut empty = 0;
        let judged = (0..=MOST_EMPTY).map(|_| judge_page(&page, Some("a"), &mut empty));
        assert_eq!(judged.filter(Result::is_err).count(), 1);
        let full = Page { listed: 1, ..page };
        assert!(judge_page(&full, Some("a"), &mut empty).is_ok());
        assert_eq!(empty, 0);
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let mut keys = Ascending::default();
        for key in ["a", "a-c", "a.b", "a/x", "ab"] {
            assert_eq!(keys.take(key), Ok(()));
        }
        assert_eq!(keys.take("ab"), Err("ab is listed after ab".to_owned()));
        assert!(keys.take("a/y").is_err());
    }
}
