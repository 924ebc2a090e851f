//! Writes the same made-up content on every run, about as compressible as the files of
//! real images (gzip halves it): layers for the benchmark.
//!
//! `content blob BYTES SEED` writes to standard output; `content tree COUNT SEED DIR`
//! makes COUNT small files below DIR, fifty in a directory.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

const BLOCK: usize = 4096;

/// A xorshift generator: quick, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> usize {
        usize::try_from(self.next() % limit).expect("a small number")
    }
}

struct Content {
    random: Random,
    words: Vec<Vec<u8>>,
}

impl Content {
    fn new(seed: u64) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let words = (0..2048)
            .map(|_| {
                let length = 5 + random.below(10);
                (0..length).map(|_| b"etaoinsrhldcumfpgwybvk_./-(){}\0\x48"[random.below(32)]).collect()
            })
            .collect();
        Self { random, words }
    }

    /// Of four blocks three read like text or code, and one like compressed data.
    fn block(&mut self, out: &mut Vec<u8>) {
        out.clear();
        if self.random.below(4) == 0 {
            while out.len() < BLOCK {
                out.extend_from_slice(&self.random.next().to_le_bytes());
            }
        } else {
            let mut word = 0;
            while out.len() < BLOCK {
                // Words come in phrases, and some phrases are far more common than others.
                word = match self.random.below(3) {
                    0 => self.random.below(2048).min(self.random.below(2048)),
                    _ => (word + 1) % 2048,
                };
                out.extend_from_slice(&self.words[word]);
                out.push(b' ');
            }
        }
        out.truncate(BLOCK);
    }

    fn write(&mut self, mut bytes: usize, to: &mut impl Write) {
        let mut block = Vec::with_capacity(2 * BLOCK);
        while bytes > 0 {
            self.block(&mut block);
            let part = bytes.min(BLOCK);
            to.write_all(&block[..part]).expect("write content");
            bytes -= part;
        }
    }
}

fn tree(count: usize, content: &mut Content, dir: &Path) {
    for file in 0..count {
        let parent = dir.join(format!("{:03}", file / 50 / 20)).join(format!("{:02}", file / 50 % 20));
        if file % 50 == 0 {
            fs::create_dir_all(&parent).expect("make a directory");
        }
        let mut out = fs::File::create(parent.join(format!("file{file}.txt"))).expect("make a file");
        let size = 200 + content.random.below(5600);
        content.write(size, &mut out);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let seed = args.get(2).and_then(|text| text.parse().ok()).expect("a seed");
    let mut content = Content::new(seed);
    match args[0].as_str() {
        "blob" => content.write(number(&args[1]), &mut BufWriter::new(std::io::stdout().lock())),
        "tree" => tree(number(&args[1]), &mut content, Path::new(&args[3])),
        other => panic!("unknown command {other}"),
    }
}
