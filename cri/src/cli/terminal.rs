//! The person's own terminal, while a container's is shown in it.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::output;

/// Keys that leave a session and let it run: control-p, control-q, as with crictl.
const DETACH: [u8; 2] = [0x10, 0x11];

/// A terminal whose keys go through as they are; dropping this makes it as it was.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Takes the terminal that standard input is.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.before) {
            output::complain(format_args!("the terminal stays as it is: {error}; `reset` helps"));
        }
    }
}

/// Whether standard input is a terminal.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// The terminal's size, as servers take it.
pub(crate) fn size() -> io::Result<String> {
    let size = tcgetwinsize(io::stdin())?;
    Ok(format!("{{\"Width\":{},\"Height\":{}}}", size.ws_col, size.ws_row))
}

/// Looks for the keys that leave a session.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// How many of them were pressed last.
    pressed: usize,
}

impl Keys {
    /// What of the keys goes to the command, and whether the session is left.
    pub(crate) fn press(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        let mut through = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            if *key == DETACH[self.pressed] {
                self.pressed += 1;
                if self.pressed == DETACH.len() {
                    return (through, true);
                }
                continue;
            }
            through.extend_from_slice(&DETACH[..self.pressed]);
            self.pressed = 0;
            // The first of them may come again.
            if *key == DETACH[0] {
                self.pressed = 1;
            } else {
                through.push(*key);
            }
        }
        (through, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave() {
        let check = |pressed: &[&[u8]], expected: &[u8], leaves: bool| {
            let mut keys = Keys::default();
            let mut through = Vec::new();
            let mut left = false;
            for some in pressed {
                let (more, leave) = keys.press(some);
                through.extend(more);
                left |= leave;
            }
            assert_eq!((through.as_slice(), left), (expected, leaves), "{pressed:?}");
        };
        check(&[b"ls\n"], b"ls\n", false);
        check(&[b"a\x10\x11b"], b"a", true);
        check(&[b"\x10", b"\x11"], b"", true);
        check(&[b"\x10", b"x"], b"\x10x", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"\x11"], b"\x11", false);
    }
}
