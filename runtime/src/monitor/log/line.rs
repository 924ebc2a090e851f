//! Lines as the CRI's log format wants them: cut at newlines, and into parts where they are too long.

/// Whether a line is complete with this part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::monitor) enum Tag {
    Full,
    Partial,
}

/// Takes what it is given, in two pieces; false when there is no room for it.
pub(in crate::monitor) type Emit<'a> = &'a mut dyn FnMut(Tag, [&[u8]; 2]) -> bool;

/// The lines of one stream.
#[derive(Debug)]
pub(in crate::monitor) struct Lines {
    /// The beginning of a line whose end has not come; mostly nothing.
    pending: Vec<u8>,
    /// Longer lines are cut.
    limit: usize,
}

/// What a stream keeps when it has nothing pending.
const KEPT_BYTES: usize = 1024;

impl Lines {
    pub(in crate::monitor) fn new(limit: usize) -> Self {
        Self { pending: Vec::new(), limit }
    }

    /// Emits the lines that end in `chunk`; returns how much of it was used, all unless there was no room.
    pub(in crate::monitor) fn push(&mut self, chunk: &[u8], emit: Emit<'_>) -> usize {
        let mut used = 0;
        while used < chunk.len() {
            let rest = &chunk[used..];
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let (begin, end) = self.without_return(&rest[..newline.unwrap_or(rest.len())], newline.is_some());
            if begin.len() + end.len() > self.limit {
                let cut = self.limit.saturating_sub(begin.len());
                if !emit(Tag::Partial, [begin, &end[..cut]]) {
                    return used;
                }
                used += cut;
                self.clear();
            } else if let Some(newline) = newline {
                if !emit(Tag::Full, [begin, end]) {
                    return used;
                }
                used += newline + 1;
                self.clear();
            } else {
                self.pending.extend_from_slice(rest);
                used = chunk.len();
            }
        }
        used
    }

    /// Emits what has no newline yet; false when there was no room.
    pub(in crate::monitor) fn flush(&mut self, emit: Emit<'_>) -> bool {
        if !self.pending.is_empty() {
            if !emit(Tag::Partial, [&self.pending, &[]]) {
                return false;
            }
            self.clear();
        }
        true
    }

    /// Forgets what has no newline yet; returns how much that was.
    pub(in crate::monitor) fn forget(&mut self) -> usize {
        let bytes = self.pending.len();
        self.clear();
        bytes
    }

    /// The line so far; a carriage return before its newline belongs to neither, as containerd has it.
    fn without_return<'a>(&'a self, end: &'a [u8], is_whole: bool) -> (&'a [u8], &'a [u8]) {
        let begin = self.pending.as_slice();
        match (is_whole, end) {
            (true, [end @ .., b'\r']) => (begin, end),
            (true, []) => (begin.strip_suffix(b"\r").unwrap_or(begin), end),
            _ => (begin, end),
        }
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.pending.shrink_to(KEPT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limit: usize, chunks: &[&str]) -> String {
        let mut lines = Lines::new(limit);
        let mut text = String::new();
        let mut emit = |tag, [begin, end]: [&[u8]; 2]| {
            let tag = if tag == Tag::Full { 'F' } else { 'P' };
            let [begin, end] = [begin, end].map(|piece| std::str::from_utf8(piece).unwrap());
            text.push_str(&format!("{tag}{begin}{end}|"));
            true
        };
        for chunk in chunks {
            assert_eq!(lines.push(chunk.as_bytes(), &mut emit), chunk.len());
        }
        assert!(lines.flush(&mut emit));
        text
    }

    #[test]
    fn lines_are_cut_at_newlines_and_at_the_limit() {
        for (chunks, expected) in [
            (&["a\nb\n"][..], "Fa|Fb|"),
            (&["a", "b\n", "\n"], "Fab|F|"),
            (&["ab"], "Pab|"),
            (&["abcd\n"], "Fabcd|"),
            (&["abcde\n"], "Pabcd|Fe|"),
            (&["abcdefghij"], "Pabcd|Pefgh|Pij|"),
            (&["abc", "defgh", "i\n"], "Pabcd|Pefgh|Fi|"),
            (&["abcd", "\n"], "Fabcd|"),
            (&["a\r\nb\r", "\n\r\r\n"], "Fa|Fb|F\r|"),
            (&["abcd\r\n"], "Fabcd|"),
            (&["abcd\r", "\n"], "Pabcd|F|"),
            (&["a\rb\n"], "Fa\rb|"),
            (&["\r\n", "\n"], "F|F|"),
            (&[], ""),
        ] {
            assert_eq!(lines(4, chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn nothing_is_lost_when_there_is_no_room() {
        let mut lines = Lines::new(4);
        let mut room = 1;
        let mut text = Vec::new();
        let mut emit = |_, [begin, end]: [&[u8]; 2]| {
            room -= 1;
            if room >= 0 {
                text.extend_from_slice(begin);
                text.extend_from_slice(end);
            }
            room >= 0
        };
        assert_eq!(lines.push(b"ab", &mut emit), 2);
        let chunk = b"c\nde\nfghijk";
        let used = lines.push(chunk, &mut emit);
        assert_eq!(used, 2);
        let mut emit = |_, [begin, end]: [&[u8]; 2]| {
            text.extend_from_slice(begin);
            text.extend_from_slice(end);
            true
        };
        assert_eq!(used + lines.push(&chunk[used..], &mut emit), chunk.len());
        assert!(lines.flush(&mut emit));
        assert_eq!(text, b"abcdefghijk");
    }
}
