//! corten-runtime: the monitor of a pod. Corten starts it; a person has no use for it yet.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == "monitor" => match runtime::monitor::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Seen by those who start it by hand; under Corten this is the null device.
                eprintln!("corten-runtime: {error}");
                ExitCode::FAILURE
            }
        },
        // Holds a scope of systemd's until standard input ends, which it does with the daemon at the latest.
        Some(command) if command == "placeholder" => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: corten-runtime monitor POD\n\nStarted by corten, with descriptors to talk to it."
            );
            ExitCode::from(2)
        }
    }
}
