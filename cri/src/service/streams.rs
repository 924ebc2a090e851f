//! Lists in chunks: what the unary call would answer, in messages that fit any client, and then the end.
//!
//! The list is taken in one look, so that nothing is sent twice and nothing is left out.

use futures_util::stream::{self, Iter};
use prost::Message;
use tonic::{Response, Status};

/// A chunk is full when it is so large; well below what any client takes.
const CHUNK_BYTES: usize = 1 << 20;
/// A chunk is full when it has so many.
const CHUNK_ITEMS: usize = 500;

/// Messages with a part of a list each.
pub(super) type Chunks<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

/// Cuts a list into messages that `wrap` makes.
pub(super) fn chunks<I: Message, T>(items: Vec<I>, wrap: impl Fn(Vec<I>) -> T) -> Response<Chunks<T>> {
    let messages: Vec<_> = cut(items).into_iter().map(|chunk| Ok(wrap(chunk))).collect();
    Response::new(stream::iter(messages))
}

fn cut<I: Message>(items: Vec<I>) -> Vec<Vec<I>> {
    let mut chunks: Vec<Vec<I>> = Vec::new();
    let mut bytes = usize::MAX;
    for item in items {
        let size = item.encoded_len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ITEMS && bytes.saturating_add(size) <= CHUNK_BYTES => {
                chunk.push(item);
                bytes += size;
            }
            _ => {
                chunks.push(vec![item]);
                bytes = size;
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[usize], expected: &[usize]) {
        let chunks = cut(sizes.iter().map(|size| "x".repeat(*size)).collect());
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        let seen: Vec<usize> = chunks.into_iter().flatten().map(|item| item.len()).collect();
        assert_eq!(seen, sizes, "all of it, in order");
    }

    #[test]
    fn a_chunk_has_a_bound_in_items_and_bytes() {
        check(&[], &[]);
        check(&[1; 3], &[3]);
        check(&[1; 2 * CHUNK_ITEMS + 1], &[CHUNK_ITEMS, CHUNK_ITEMS, 1]);
        check(&[CHUNK_BYTES / 2 - 8, CHUNK_BYTES / 2 - 8, 100], &[2, 1]);
        check(&[1, 3 * CHUNK_BYTES, 1], &[1, 1, 1]);
    }
}
