// SPDX-License-Identifier: MIT OR Apache-2.0
//! Payloads of the options a client sends. Every length inside is checked against the bytes that are really
//! there, and the payload must be used up exactly (CVE-2022-26495: a name length of 2^32 - 1 was believed).

use alloc::string::String;
use alloc::vec::Vec;

use crate::export::is_valid_name;
use crate::limits::META_QUERIES_MAX;
use crate::option::{INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_NAME, OptionError};
use crate::wire::Reader;

/// Why a payload is refused: the error reply and its text.
pub(super) type Malformed = (OptionError, &'static str);

const TOO_SHORT: Malformed = (OptionError::Invalid, "the option is shorter than its contents");
const TOO_LONG: Malformed = (OptionError::Invalid, "the option is longer than its contents");
const BAD_NAME: Malformed =
    (OptionError::Invalid, "an export name must be at most 4096 bytes of UTF-8 without NUL");
const BAD_QUERY: Malformed =
    (OptionError::Invalid, "a metadata query must be a namespace, a colon and a name");
const MANY_QUERIES: Malformed = (OptionError::TooBig, "too many metadata queries");

/// INFO or GO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DescribeRequest {
    pub(super) name: String,
    pub(super) wants_name: bool,
    pub(super) wants_description: bool,
    pub(super) wants_block_size: bool,
}

/// LIST_META_CONTEXT or SET_META_CONTEXT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContextRequest {
    pub(super) name: String,
    pub(super) queries: Vec<String>,
}

/// A name as the protocol wants it.
pub(super) fn parse_name(bytes: &[u8]) -> Option<String> {
    let name = str::from_utf8(bytes).ok()?;
    is_valid_name(name).then(|| name.into())
}

fn counted_name(data: &mut Reader<'_>) -> Result<String, Malformed> {
    let len = data.u32().ok_or(TOO_SHORT)?;
    let bytes = data.bytes(len as usize).ok_or(TOO_SHORT)?;
    parse_name(bytes).ok_or(BAD_NAME)
}

/// Information requests we do not know are ignored, as the document demands; repeated ones are harmless.
pub(super) fn parse_describe(data: &[u8]) -> Result<DescribeRequest, Malformed> {
    let mut data = Reader(data);
    let name = counted_name(&mut data)?;
    let mut request =
        DescribeRequest { name, wants_name: false, wants_description: false, wants_block_size: false };
    for _ in 0..data.u16().ok_or(TOO_SHORT)? {
        match data.u16().ok_or(TOO_SHORT)? {
            INFO_NAME => request.wants_name = true,
            INFO_DESCRIPTION => request.wants_description = true,
            INFO_BLOCK_SIZE => request.wants_block_size = true,
            _ => {}
        }
    }
    if data.is_empty() { Ok(request) } else { Err(TOO_LONG) }
}

/// Queries of namespaces we do not know are kept: they match nothing, which is how they are ignored.
pub(super) fn parse_contexts(data: &[u8]) -> Result<ContextRequest, Malformed> {
    let mut data = Reader(data);
    let name = counted_name(&mut data)?;
    let count = data.u32().ok_or(TOO_SHORT)?;
    if count > META_QUERIES_MAX {
        return Err(MANY_QUERIES);
    }
    let mut queries = Vec::new();
    for _ in 0..count {
        let query = counted_name(&mut data)?;
        if query.find(':').is_none_or(|colon| colon == 0) {
            return Err(BAD_QUERY);
        }
        queries.push(query);
    }
    if data.is_empty() { Ok(ContextRequest { name, queries }) } else { Err(TOO_LONG) }
}

impl ContextRequest {
    /// Whether the client means this context. Setting wants whole names; listing also takes a bare namespace
    /// (`base:`), and no query at all means everything.
    pub(super) fn matches(&self, context: &str, setting: bool) -> bool {
        let namespace = context.find(':').map_or(context, |colon| &context[..=colon]);
        let is_meant = |query: &String| query == context || (!setting && query == namespace);
        (!setting && self.queries.is_empty()) || self.queries.iter().any(is_meant)
    }
}
