//! Builds tar archives, good and bad, byte by byte.

/// An archive that is being built.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

/// A header with its data.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: u64,
    /// What the header says; the data's length if nothing else.
    pub(crate) size: Option<u64>,
    pub(crate) data: Vec<u8>,
}

impl Item {
    pub(crate) fn new(kind: u8, name: &str) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (name, link) = (name.into(), Vec::new());
        Self { kind, name, link, mode, uid: 0, gid: 0, mtime: 1_000_000_000, size: None, data: Vec::new() }
    }

    pub(crate) fn link(mut self, target: &str) -> Self {
        self.link = target.into();
        self
    }

    pub(crate) fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(crate) fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    pub(crate) fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Returns the header block, in the ustar format.
    pub(crate) fn header(&self) -> [u8; 512] {
        let mut block = [0; 512];
        put(&mut block[..100], &self.name[..self.name.len().min(100)]);
        put(&mut block[100..108], format!("{:07o}", self.mode).as_bytes());
        put(&mut block[108..116], format!("{:07o}", self.uid).as_bytes());
        put(&mut block[116..124], format!("{:07o}", self.gid).as_bytes());
        let size = self.size.unwrap_or(self.data.len() as u64);
        put(&mut block[124..136], format!("{size:011o}").as_bytes());
        put(&mut block[136..148], format!("{:011o}", self.mtime).as_bytes());
        block[156] = self.kind;
        put(&mut block[157..257], &self.link[..self.link.len().min(100)]);
        put(&mut block[257..265], b"ustar\x0000");
        seal(&mut block);
        block
    }
}

/// Writes the checksum of a header block.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    put(&mut block[148..156], format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn item(self, item: &Item) -> Self {
        self.block(&item.header()).data(&item.data)
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.item(&Item::new(b'0', name).data(content))
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.item(&Item::new(b'5', name))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.item(&Item::new(b'2', name).link(target))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.item(&Item::new(b'1', name).link(target))
    }

    /// Adds a header of PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', &records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<_>>())
    }

    /// Adds an extended header with this data.
    pub(crate) fn extended(self, kind: u8, data: &[u8]) -> Self {
        self.item(&Item::new(kind, "extended").data(data))
    }

    pub(crate) fn block(mut self, block: &[u8]) -> Self {
        self.0.extend_from_slice(block);
        self
    }

    /// Ends the archive as tar does.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// Returns what there is so far.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
}

/// Returns a PAX record, whose length counts itself.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn put(field: &mut [u8], value: &[u8]) {
    field[..value.len()].copy_from_slice(value);
}
