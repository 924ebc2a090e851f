//! The daemon's end of an unpacking process.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;

use super::layer::{Directory, Layer, LayerRecord};
use super::{Claim, LayerExpectation, Unpacker};
use crate::Error;
use crate::unpack::{MAX_REPORT_BYTES, Order, Report, Unpacked, mark_opaque};

/// How much the pipe to the process holds, so that neither waits for the other's every step.
const PIPE_BYTES: usize = 512 << 10;

/// Takes the compressed bytes of a layer. Dropped before [`LayerWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct LayerWriter(Box<Running>);

#[derive(Debug)]
struct Running {
    expected: LayerExpectation,
    claim: Claim,
    process: Process,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl LayerWriter {
    /// Starts the process in the new, empty directory.
    pub(super) async fn start(
        unpacker: &Unpacker,
        directory: Directory,
        expected: LayerExpectation,
        claim: Claim,
    ) -> Result<Self, Error> {
        let failed = |e| Error::store("start the unpacking process", &unpacker.program, e);
        let skeleton = directory.skeleton();
        let skeleton = File::create_new(skeleton).map_err(|e| Error::store("make", skeleton, e))?;
        let mut child = spawn(unpacker, directory.path(), skeleton).map_err(failed)?;
        let missing = || failed(std::io::ErrorKind::BrokenPipe.into());
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        if let Err(e) = rustix::pipe::fcntl_setpipe_size(&input, PIPE_BYTES) {
            // The kernel limits what one user may have. A smaller pipe is only slower.
            tracing::debug!(error = %e, "the pipe to the unpacking process stays small");
        }
        let process = Process(Some((child, directory)));
        let order = Order { diff_id: expected.name().clone() }.to_line().map_err(failed)?;
        let mut running = Box::new(Running { expected, claim, process, input: Some(input), output });
        running.write(order.into()).await?;
        Ok(Self(running))
    }

    /// Hands the next bytes of the compressed layer on.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.0.write(chunk).await
    }

    /// Ends the layer: everything was sent. Checks that it is the one expected.
    pub(crate) async fn finish(self) -> Result<Layer, Error> {
        self.0.finish().await
    }

    /// Returns the id of the process while it was not waited for.
    #[cfg(test)]
    pub(super) fn process_id(&self) -> Option<u32> {
        self.0.process.0.as_ref()?.0.id()
    }
}

impl Running {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        let written = match &mut self.input {
            Some(input) => input.write_all(&chunk).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        // The process ends early only to say why.
        if written.is_err() { Err(self.report().await.map_or_else(|e| e, |_| self.silent())) } else { Ok(()) }
    }

    async fn finish(mut self) -> Result<Layer, Error> {
        let unpacked = self.report().await?;
        if let Some(expected) = &self.expected.diff_id
            && *expected != unpacked.diff_id
        {
            let (what, expected) = ("unpacked layer".into(), expected.clone());
            return Err(Error::DigestMismatch { what, expected, found: unpacked.diff_id });
        }
        if unpacked.skipped > 0 {
            let (layer, nodes) = (&unpacked.diff_id, unpacked.skipped);
            tracing::debug!(%layer, nodes, "device nodes below a dev directory were left out");
        }
        let Some((child, directory)) = self.process.0.take() else {
            return Err(self.silent());
        };
        drop(child);
        let (directory, unpacked, skeleton_bytes) = super::blocking(move || {
            let bytes = complete(&directory, &unpacked)?;
            Ok((directory, unpacked, bytes))
        })
        .await?;
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let implied = unpacked.implied().collect();
        let opaque = unpacked.opaque().any(|name| name.is_root());
        let record = LayerRecord {
            chain: self.expected.chain,
            diff_id: unpacked.diff_id,
            name,
            bytes: unpacked.bytes.saturating_add(skeleton_bytes),
            inodes: unpacked.inodes.saturating_add(1),
            opaque,
            archive_bytes: Some(unpacked.archive_bytes),
        };
        Ok(self.claim.settle(Layer::new(record, directory, implied)))
    }

    /// Ends the input, and waits for the report and the end of the process.
    async fn report(&mut self) -> Result<Unpacked, Error> {
        self.input = None;
        let mut bytes = Vec::new();
        let mut output = (&mut self.output).take(MAX_REPORT_BYTES);
        let read = output.read_to_end(&mut bytes).await;
        let Some((child, _)) = &mut self.process.0 else {
            return Err(self.silent());
        };
        let status = child.wait().await;
        let line = bytes.trim_ascii_end().rsplit(|&b| b == b'\n').next().unwrap_or_default();
        let layer = || self.expected.name().clone();
        match (serde_json::from_slice(line), read, status) {
            (Ok(Report::Unpacked(unpacked)), Ok(_), Ok(status)) if status.success() => Ok(unpacked),
            (Ok(Report::Refused(reason)), ..) => Err(Error::LayerRefused { layer: layer(), reason }),
            (Ok(Report::Failed(reason)), ..) => Err(Error::Unpack { layer: layer(), reason }),
            (_, Err(e), _) | (_, _, Err(e)) => Err(Error::Unpack { layer: layer(), reason: e.to_string() }),
            (_, _, Ok(status)) => {
                let reason = format!("the unpacking process ended without a report: {status}");
                Err(Error::Unpack { layer: layer(), reason })
            }
        }
    }

    fn silent(&self) -> Error {
        let reason = "the unpacking process took no more input".to_owned();
        Error::Unpack { layer: self.expected.name().clone(), reason }
    }
}

/// Does what the process may not: sets overlayfs's marks. Returns the size of the skeleton on disk.
fn complete(directory: &Directory, unpacked: &Unpacked) -> Result<u64, Error> {
    let path = directory.path();
    let layer = File::open(path).map_err(|e| Error::store("open", path, e))?;
    for name in unpacked.opaque() {
        mark_opaque(layer.as_fd(), &name).map_err(|e| Error::store("mark a directory of", path, e.into()))?;
    }
    let skeleton = directory.skeleton();
    let found = skeleton.symlink_metadata().map_err(|e| Error::store("look at", skeleton, e))?;
    Ok(found.blocks() * 512)
}

/// The process has the skeleton for its standard error: that takes no privileged step between fork and execve.
fn spawn(unpacker: &Unpacker, directory: &Path, skeleton: File) -> std::io::Result<Child> {
    Command::new(&unpacker.program)
        .args(&unpacker.args)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(skeleton)
        .kill_on_drop(true)
        .spawn()
}

/// The process and the directory that it writes. The directory goes only after the process is dead.
#[derive(Debug)]
struct Process(Option<(Child, Directory)>);

impl Drop for Process {
    fn drop(&mut self) {
        let Some((mut child, directory)) = self.0.take() else {
            return;
        };
        // An error says that it has ended already.
        drop(child.start_kill());
        // Without a reactor the daemon is ending, and the next start deletes what is left.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(e) = child.wait().await {
                    tracing::warn!(error = %e, "cannot wait for an unpacking process");
                }
                drop(directory);
            });
        }
    }
}
