//! What is made from the program's own lists, so that it cannot say something else than the program does: manual
//! pages and completions from the command line, the configuration file from the options, the seccomp profile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell;

use crate::{cli, config};

/// Prints completions.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum, default_value = "bash")]
    shell: Shell,
}

/// Writes everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Generate {
    /// An empty or new directory
    directory: PathBuf,
}

impl Completion {
    pub(crate) fn run(self, command: clap::Command) -> anyhow::Result<()> {
        cli::output::stdout().write_all(&completion(self.shell, command)).context("print the completions")
    }
}

impl Generate {
    pub(crate) fn run(self, command: clap::Command) -> anyhow::Result<()> {
        let directory = &self.directory;
        write(directory, "config.toml", config::default_file()?.as_bytes())?;
        write(directory, "seccomp.json", &seccomp_profile()?)?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            write(directory, &format!("completions/{shell}"), &completion(shell, command.clone()))?;
        }
        let manuals = directory.join("man");
        fs::create_dir_all(&manuals).with_context(|| format!("make {}", manuals.display()))?;
        clap_mangen::generate_to(command, &manuals).context("write the manual pages")?;
        write(&manuals, "corten.toml.5", config::manual_page()?.as_bytes())
    }
}

fn completion(shell: Shell, mut command: clap::Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "corten", &mut script);
    script
}

/// The RuntimeDefault profile of a container with the default capabilities, in the OCI's form: something to begin a
/// Localhost profile with.
fn seccomp_profile() -> anyhow::Result<Vec<u8>> {
    let profile = runtime::seccomp::default_profile(&[]);
    serde_json::to_vec_pretty(&profile).context("print the seccomp profile")
}

fn write(directory: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(name);
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn everything_is_written_and_speaks_of_the_commands() {
        let dir = tempfile::tempdir().unwrap();
        let generate = Generate { directory: dir.path().join("new") };
        generate.run(crate::Arguments::command()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("new").join(name)).unwrap();
        assert!(read("man/corten-serve.1").contains("state"));
        assert!(read("man/corten.toml.5").contains("conf_dir"));
        assert!(
            !dir.path().join("new/man/corten-unpack-layer.1").exists(),
            "hidden commands are not for people"
        );
        for shell in ["bash", "fish", "zsh"] {
            assert!(read(&format!("completions/{shell}")).contains("inspectp"), "{shell}");
        }
        assert_eq!(read("config.toml"), config::default_file().unwrap());
        let profile = runtime::seccomp::parse(read("seccomp.json").as_bytes(), &[]).unwrap();
        runtime::seccomp::compile(&profile).unwrap();
    }
}
