//! Exec: a further command in a running container, for someone who follows it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::Process;
use runtime::{ExecExit, ExecOrder, ExecStdio, Handover, Terminal};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Container, Template, parse_cgroup};
use crate::error::{Error, Result};
use crate::node::{Node, blocking};
use crate::record::ContainerPhase;
use crate::stream::{End, Input, Output, Session, Stdio, Work, output};

impl Node {
    /// A running container.
    pub(crate) fn running(&self, id: &str) -> Result<Arc<Container>> {
        let container = self.table.container(id)?;
        match container.phase() {
            ContainerPhase::Running => Ok(container),
            ContainerPhase::Creating => Err(Error::container_not_found(id)),
            _ => Err(Error::WrongState {
                kind: "container",
                id: container.id.clone(),
                state: "not running",
                needed: "only a running container can be entered",
            }),
        }
    }

    /// Starts a command for someone who follows it.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        wanted: Stdio,
    ) -> Result<Session> {
        let container = self.running(id)?;
        let monitor = container.pod.monitor().ok_or_else(|| Error::container_not_found(id))?;
        let (ours, theirs) = if wanted.tty { Ends::terminal()? } else { Ends::pipes(wanted)? };
        let (node, executed) = (self.clone(), container.clone());
        let order = blocking(move || {
            let plan = node.exec_plan(&executed, command, wanted.tty)?;
            node.exec_order(&executed, plan, theirs, None)
        })
        .await?;
        let (ended, end) = watch::channel(false);
        let id = container.id.clone();
        let work = Work::spawn(async move {
            let exit = monitor.exec(order).await;
            // Nobody may be reading.
            ended.send_replace(true);
            match exit.map_err(Error::runtime("run a command in", "container", &id))? {
                ExecExit::Exited(code) => Ok(End::Exited(code)),
                ExecExit::TimedOut => Err(Error::ExecTimeout { id, seconds: 0 }),
            }
        });
        ours.session(work, wanted, &end).await
    }

    pub(super) fn exec_plan(
        &self,
        container: &Container,
        command: Vec<String>,
        tty: bool,
    ) -> Result<Vec<u8>> {
        let template = self.exec_template(container)?;
        let process = process(&template, command, tty)?;
        self.process_plan(container, &template, &process)
    }

    /// From memory, or after a restart of the daemon from the container's record.
    fn exec_template(&self, container: &Container) -> Result<Template> {
        if let Some(template) = container.template() {
            return Ok(template);
        }
        let spec = self.records.load_spec(&container.pod.id, &container.id)?;
        let filter = self.filters.program(&spec)?;
        let template = Template::new(spec, filter);
        container.set_template(template.clone());
        Ok(template)
    }

    pub(super) fn exec_order(
        &self,
        container: &Container,
        plan: Vec<u8>,
        stdio: ExecStdio,
        timeout: Option<Duration>,
    ) -> Result<ExecOrder> {
        let cgroup = self.runtime.cgroups().open(&parse_cgroup(&container.cgroup())?);
        let handles = cgroup.handles().map_err(|source| Error::Cgroup {
            operation: "open",
            id: container.id.clone(),
            source: Arc::new(source),
        })?;
        Ok(ExecOrder { container: container.id.clone(), plan, cgroup: handles, stdio, timeout })
    }
}

fn process(template: &Template, command: Vec<String>, tty: bool) -> Result<Process> {
    if command.is_empty() {
        return Err(Error::invalid("cmd", "empty: give a command"));
    }
    let Some(process) = template.spec.process() else {
        return Err(Error::invalid("container_id", "the container's record names no process"));
    };
    let mut process = process.clone();
    process.set_args(Some(command)).set_terminal(Some(tty));
    if tty {
        let env = process.env_mut().get_or_insert_default();
        if !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
    }
    Ok(process)
}

/// What a command has for a stream that nobody follows: what it writes there goes well.
pub(super) fn null_device() -> Result<OwnedFd> {
    let path = std::path::Path::new("/dev/null");
    let device = std::fs::File::options().read(true).write(true).open(path);
    Ok(device.map_err(Error::file("open", path))?.into())
}

/// Our ends of what a followed command reads and writes.
enum Ends {
    Pipes { stdin: Option<Input>, stdout: Option<pipe::Receiver>, stderr: Option<pipe::Receiver> },
    Terminal(Handover),
}

impl Ends {
    fn pipes(wanted: Stdio) -> Result<(Self, ExecStdio)> {
        let (stdin, stdin_end) = split(wanted.stdin, Input::pipe)?;
        let (stdout, stdout_end) = split(wanted.stdout, output::pipe)?;
        let (stderr, stderr_end) = split(wanted.stderr, output::pipe)?;
        Ok((Self::Pipes { stdin, stdout, stderr }, ExecStdio::Streams([stdin_end, stdout_end, stderr_end])))
    }

    fn terminal() -> Result<(Self, ExecStdio)> {
        let (ours, theirs) =
            Handover::new().map_err(Error::file("make", std::path::Path::new("socket pair")))?;
        Ok((Self::Terminal(ours), ExecStdio::Terminal(theirs)))
    }

    /// A session once it is clear that there is a terminal; why there is none is the work's to say.
    async fn session(self, work: Work, wanted: Stdio, end: &watch::Receiver<bool>) -> Result<Session> {
        let handover = match self {
            Self::Pipes { stdin, stdout, stderr } => {
                return Ok(Session {
                    stdin: stdin.map(|stdin| Box::new(stdin) as _),
                    stdout: stdout.map(|stdout| Box::new(Output::until(stdout, over(end))) as _),
                    stderr: stderr.map(|stderr| Box::new(Output::until(stderr, over(end))) as _),
                    terminal: None,
                    end: Box::pin(work.end()),
                });
            }
            Self::Terminal(handover) => handover,
        };
        let received = handover.receive().await;
        let received =
            received.map_err(Error::file("receive", std::path::Path::new("the command's terminal")));
        let terminal: Terminal = match received? {
            Some(terminal) => terminal,
            None => match work.end().await {
                Err(error) => return Err(error),
                Ok(_) => return Err(Error::TaskLost { operation: "making a terminal" }),
            },
        };
        let output = Output::until(terminal.clone(), over(end));
        Ok(Session {
            stdin: wanted.stdin.then(|| Box::new(Input::Terminal(terminal.clone())) as _),
            stdout: wanted.stdout.then(|| Box::new(output) as _),
            stderr: None,
            terminal: Some(terminal),
            end: Box::pin(work.end()),
        })
    }
}

/// A pipe if it is wanted, else the null device.
fn split<T>(is_wanted: bool, make: fn() -> Result<(T, OwnedFd)>) -> Result<(Option<T>, OwnedFd)> {
    if is_wanted { make().map(|(ours, theirs)| (Some(ours), theirs)) } else { Ok((None, null_device()?)) }
}

fn over(end: &watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
    let mut end = end.clone();
    async move {
        // Without a sender it is over too.
        drop(end.wait_for(|ended| *ended).await);
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    #[test]
    fn a_terminal_has_a_kind_unless_the_container_names_one() {
        for (env, tty, expected) in [
            (vec!["PATH=/bin"], true, vec!["PATH=/bin", "TERM=xterm"]),
            (vec!["TERM=vt100"], true, vec!["TERM=vt100"]),
            (vec!["PATH=/bin"], false, vec!["PATH=/bin"]),
        ] {
            let mut spec = Spec::default();
            let env = env.into_iter().map(str::to_owned).collect::<Vec<_>>();
            spec.process_mut().get_or_insert_default().set_env(Some(env));
            let process = process(&Template::new(spec, None), vec!["sh".to_owned()], tty).unwrap();
            assert_eq!(process.env().clone().unwrap(), expected);
            assert_eq!(
                (process.terminal(), process.args().clone()),
                (Some(tty), Some(vec!["sh".to_owned()]))
            );
        }
        assert!(process(&Template::new(Spec::default(), None), Vec::new(), false).is_err());
    }

    #[test]
    fn a_stream_that_nobody_follows_can_be_written_to() {
        let (none, theirs) = split(false, output::pipe).unwrap();
        assert!(none.is_none());
        assert_eq!(rustix::io::write(theirs, b"word").unwrap(), 4);
    }
}
