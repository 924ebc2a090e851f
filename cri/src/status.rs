//! Errors become gRPC statuses: the code is for programs, the text, the whole chain, is for people.
//!
//! Every variant of every error is matched, so that a new one does not compile until it has a code. Codes that
//! the kubelet gives a meaning are used for that alone: NotFound says that the pod or container is gone,
//! DeadlineExceeded that a command ran out of time, Unimplemented that a call does not exist. The kubelet also
//! reads two prefixes, and only with the code Unknown: `RegistryUnavailable` and `SignatureValidationFailed`.

use rustix::io::Errno;
use tonic::{Code, Status};

use crate::convert::Invalid;
use crate::stream;

/// Texts travel in a header, percent-encoded; clients limit headers to 16 KiB.
const TEXT_BYTES: usize = 4000;

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Self {
        status(Code::InvalidArgument, error.to_string())
    }
}

/// The status of a pod's or container's error.
pub(crate) fn pod(error: pod::Error) -> Status {
    let text = pod::chain(&error);
    match error {
        pod::Error::Image { source, .. } => image_status(&source, text),
        // Counted by the kubelet.
        error @ pod::Error::ImageVolume { .. } => {
            status(pod_code(&error), format!("ImageVolumeMountFailed: {text}"))
        }
        error @ pod::Error::RecursiveReadOnly { .. } => {
            status(pod_code(&error), format!("RROUnsupported: {text}"))
        }
        other => status(pod_code(&other), text),
    }
}

/// The status of an image's error.
pub(crate) fn image(error: image::Error) -> Status {
    image_status(&error, pod::chain(&error))
}

/// The status of a streaming request that could not be kept.
pub(crate) fn stream(error: stream::Error) -> Status {
    let code = match error {
        stream::Error::Random(_) => Code::Internal,
        stream::Error::TooMany => Code::ResourceExhausted,
    };
    status(code, pod::chain(&error))
}

/// What a call says that Corten does not have.
pub(crate) fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("corten {} does not implement {what}", env!("CARGO_PKG_VERSION")))
}

fn image_status(error: &image::Error, text: String) -> Status {
    match error {
        image::Error::RegistryUnavailable { .. } => {
            status(Code::Unknown, format!("RegistryUnavailable: {text}"))
        }
        image::Error::SignatureRefused { .. } => {
            status(Code::Unknown, format!("SignatureValidationFailed: {text}"))
        }
        other => status(image_code(other), text),
    }
}

fn status(code: Code, mut text: String) -> Status {
    if text.len() > TEXT_BYTES {
        let end = (0..=TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    Status::new(code, text)
}

fn pod_code(error: &pod::Error) -> Code {
    match error {
        pod::Error::AppArmor { .. } => Code::FailedPrecondition,
        pod::Error::Cgroup { source, .. } => cgroup_code(source),
        pod::Error::ExecTimeout { .. } => Code::DeadlineExceeded,
        pod::Error::File { source, .. } => io_code(source),
        pod::Error::Handler { source, .. } => handler_code(source),
        pod::Error::HandlerLacks { .. } => Code::FailedPrecondition,
        pod::Error::Image { source, .. } => image_code(source),
        pod::Error::ImageNotFound { .. } => Code::NotFound,
        pod::Error::ImageVolume { source, .. } => pod_code(source),
        pod::Error::Mount { source, .. } => mount_code(source),
        pod::Error::Invalid { .. } | pod::Error::UnknownHandler { .. } | pod::Error::User { .. } => {
            Code::InvalidArgument
        }
        pod::Error::NameTaken { .. } => Code::AlreadyExists,
        pod::Error::Network { source, .. } => network_code(source),
        pod::Error::NotFound { .. } => Code::NotFound,
        pod::Error::Record { .. } | pod::Error::Spec { .. } | pod::Error::TaskLost { .. } => Code::Internal,
        pod::Error::RecursiveReadOnly { .. } => Code::FailedPrecondition,
        pod::Error::Runtime { source, .. } => runtime_code(source),
        pod::Error::Selinux { source } => selinux_code(source),
        pod::Error::Teardown { .. } => Code::Internal,
        pod::Error::TooSlow { .. } => Code::ResourceExhausted,
        pod::Error::WrongState { .. } => Code::FailedPrecondition,
    }
}

fn selinux_code(error: &runtime::selinux::Error) -> Code {
    match error {
        runtime::selinux::Error::Unknown { .. } => Code::InvalidArgument,
        runtime::selinux::Error::Policy { .. } | runtime::selinux::Error::File { .. } => {
            Code::FailedPrecondition
        }
    }
}

/// What the image does not have at the path that was asked for is not found; the rest is the node's matter.
fn mount_code(failure: &runtime::Failure) -> Code {
    let kind = std::io::Error::from_raw_os_error(failure.errno).kind();
    match kind {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Code::NotFound,
        _ => Code::Internal,
    }
}

fn handler_code(error: &runtime::external::Error) -> Code {
    match error {
        runtime::external::Error::Bundle { source, .. } => io_code(source),
        runtime::external::Error::Program { .. } | runtime::external::Error::Slow { .. } => {
            Code::FailedPrecondition
        }
        runtime::external::Error::Spec(_) => Code::InvalidArgument,
    }
}

fn image_code(error: &image::Error) -> Code {
    match error {
        image::Error::Blocked { .. } => Code::PermissionDenied,
        image::Error::Config { .. } => Code::FailedPrecondition,
        image::Error::Credentials { .. } | image::Error::InvalidReference { .. } => Code::InvalidArgument,
        image::Error::DigestMismatch { .. }
        | image::Error::LayerDamaged { .. }
        | image::Error::SizeMismatch { .. } => Code::DataLoss,
        image::Error::InvalidImage { .. }
        | image::Error::LayerRefused { .. }
        | image::Error::Platform { .. }
        | image::Error::Unsupported { .. } => Code::FailedPrecondition,
        image::Error::NotFound { .. } | image::Error::Unknown { .. } => Code::NotFound,
        image::Error::Refused { status: 429, .. } => Code::ResourceExhausted,
        image::Error::Refused { .. }
        | image::Error::RegistryUnavailable { .. }
        | image::Error::SignatureRefused { .. } => Code::Unknown,
        image::Error::Store { source, .. } => io_code(source),
        image::Error::Tls { .. } => Code::FailedPrecondition,
        image::Error::TooLarge { .. } => Code::ResourceExhausted,
        image::Error::Unauthorized { .. } => Code::Unauthenticated,
        image::Error::Unpack { .. } => Code::Internal,
    }
}

fn network_code(error: &network::Error) -> Code {
    match error {
        network::Error::Add { source, .. } => network_code(source),
        network::Error::Argument { .. }
        | network::Error::Bandwidth { .. }
        | network::Error::BandwidthRange { .. } => Code::InvalidArgument,
        network::Error::CheckUnsupported { .. } => Code::FailedPrecondition,
        network::Error::NotReady(_) => Code::Unavailable,
        network::Error::Dial { .. } | network::Error::DialAddress { .. } => Code::Unavailable,
        network::Error::Cache { .. }
        | network::Error::Delete { .. }
        | network::Error::Namespace { .. }
        | network::Error::Netlink { .. }
        | network::Error::NoAddress { .. }
        | network::Error::NotNamespace { .. }
        | network::Error::Plugin { .. }
        | network::Error::Watch { .. } => Code::Internal,
    }
}

fn runtime_code(error: &runtime::Error) -> Code {
    match error {
        runtime::Error::Attach { source, .. }
        | runtime::Error::Create { source, .. }
        | runtime::Error::Exec { source, .. }
        | runtime::Error::Log { source, .. }
        | runtime::Error::Sandbox { source, .. }
        | runtime::Error::Signal { source, .. }
        | runtime::Error::Start { source, .. } => match source.kind {
            runtime::FailureKind::NotExecutable | runtime::FailureKind::NotFound => Code::InvalidArgument,
            runtime::FailureKind::Setup => Code::Internal,
            runtime::FailureKind::TargetGone => Code::FailedPrecondition,
        },
        runtime::Error::ContainerExists { .. } => Code::AlreadyExists,
        runtime::Error::Lost { .. } | runtime::Error::Timeout { .. } => Code::Unavailable,
        runtime::Error::WrongState { .. } => Code::FailedPrecondition,
        runtime::Error::Cgroup { source, .. } => cgroup_code(source),
        runtime::Error::Adopt { .. }
        | runtime::Error::Connection { .. }
        | runtime::Error::NoContainer { .. }
        | runtime::Error::Program { .. }
        | runtime::Error::Protocol { .. }
        | runtime::Error::Release { .. }
        | runtime::Error::Spawn { .. } => Code::Internal,
    }
}

fn cgroup_code(error: &runtime::cgroup::Error) -> Code {
    use runtime::cgroup::{Error, SystemdFailure};
    match error {
        Error::InvalidLimit { .. } | Error::InvalidPath { .. } => Code::InvalidArgument,
        Error::MemoryInUse { .. }
        | Error::NoController { .. }
        | Error::NoHierarchy
        | Error::NoSystemd
        | Error::Unsupported { .. } => Code::FailedPrecondition,
        // What the kernel refuses is in the text with the file's name.
        Error::Io { source, .. } => match Errno::from_io_error(source) {
            Some(Errno::INVAL | Errno::RANGE | Errno::ACCESS) => Code::InvalidArgument,
            _ => io_code(source),
        },
        Error::Systemd { source: SystemdFailure::Timeout(_), .. } => Code::Unavailable,
        Error::Busy { .. }
        | Error::Devices { .. }
        | Error::Exists { .. }
        | Error::NotFound { .. }
        | Error::NotFrozen { .. }
        | Error::Systemd { .. } => Code::Internal,
    }
}

fn io_code(error: &std::io::Error) -> Code {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_kubelet_finds_its_words() {
        let unavailable = || image::Error::RegistryUnavailable {
            host: "r.example".to_owned(),
            reason: "connection refused".to_owned(),
        };
        let pulled = image(unavailable());
        assert_eq!(pulled.code(), Code::Unknown);
        assert!(pulled.message().starts_with("RegistryUnavailable: "), "{}", pulled.message());
        let used = pod(pod::Error::Image { name: "x".to_owned(), source: Arc::new(unavailable()) });
        assert!(used.message().starts_with("RegistryUnavailable: use image"), "{}", used.message());

        let check = |error: pod::Error, code: Code| assert_eq!(pod(error).code(), code);
        check(pod::Error::ExecTimeout { id: "c".to_owned(), seconds: 1 }, Code::DeadlineExceeded);
        check(pod::Error::NotFound { kind: "pod", id: "p".to_owned() }, Code::NotFound);
        let read_only = pod(pod::Error::RecursiveReadOnly { path: "/data".into(), reason: "no" });
        assert!(read_only.message().starts_with("RROUnsupported: mount /data"), "{}", read_only.message());
        check(pod::Error::UnknownHandler { name: "x".to_owned() }, Code::InvalidArgument);
        check(
            pod::Error::WrongState { kind: "pod", id: "p".to_owned(), state: "stopped", needed: "run it" },
            Code::FailedPrecondition,
        );
    }

    #[test]
    fn texts_hold_the_whole_chain_and_fit_a_header() {
        let source = Arc::new(image::Error::Unknown { name: "n".to_owned() });
        let text = pod(pod::Error::Image { name: "n".to_owned(), source }).message().to_owned();
        assert_eq!(text, "use image \"n\": image \"n\" is not in the store");
        let long = pod(pod::Error::UnknownHandler { name: "é".repeat(9000) });
        assert!(long.message().len() <= TEXT_BYTES + 4);
        assert!(long.message().ends_with(" ..."));
    }
}
