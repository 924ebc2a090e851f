//! UpdateContainerResources and ReopenContainerLog: changes to a living container.

use std::sync::Arc;

use runtime::cgroup::Limits;

use super::create::open_log;
use super::{Container, Template, parse_cgroup};
use crate::config::Resources;
use crate::error::{Error, Result};
use crate::node::{Node, blocking};
use crate::record::ContainerPhase;
use crate::spec;

impl Node {
    /// Changes the limits that are given, all or none.
    pub(crate) async fn update_container(self: &Arc<Self>, id: &str, wanted: Resources) -> Result<()> {
        let container = self.table.container(id)?;
        let node = self.clone();
        let work = async move {
            let _gate = container.gate.lock().await;
            alive(&container)?;
            if let Some(external) = node.handlers.external(&container.pod.config.handler)? {
                external.check_update()?;
            }
            let changed = container.clone();
            blocking(move || node.set_limits(&changed, wanted)).await
        };
        // Half of an update would be neither the old limits nor the new.
        let result = tokio::spawn(work).await;
        result.unwrap_or(Err(Error::TaskLost { operation: "UpdateContainerResources" }))
    }

    fn set_limits(&self, container: &Container, mut wanted: Resources) -> Result<()> {
        let failed = |source| Error::Cgroup {
            operation: "update",
            id: container.id.clone(),
            source: Arc::new(source),
        };
        let before = container.record().resources.clone();
        wanted.take_swap_for_none(&before);
        let resources = spec::linux_resources(&wanted).map_err(of_spec(&container.id))?;
        let limits = Limits::from_spec(&resources).map_err(failed)?;
        let cgroup = self.runtime.cgroups().open(&parse_cgroup(&container.cgroup())?);
        let changed = cgroup.update(&limits).map_err(failed)?;
        // 0 is how the contract says nothing.
        let score = Some(wanted.oom_score_adj).filter(|score| *score != 0);
        let mut after = before.clone();
        merge(&mut after, wanted);
        let kept = score
            .map_or(Ok(()), |score| cgroup.set_oom_score(score).map_err(failed))
            .and_then(|()| self.keep_limits(container, &after));
        if let Err(error) = kept {
            changed.undo();
            if score.is_some()
                && let Err(source) = cgroup.set_oom_score(before.oom_score_adj)
            {
                let error = crate::error::chain(&source);
                tracing::warn!(container = container.id, error, "restore oom_score_adj");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Writes the limits in force into the spec, which a later exec is made from, and the record.
    fn keep_limits(&self, container: &Container, limits: &Resources) -> Result<()> {
        let mut spec = self.records.load_spec(&container.pod.id, &container.id)?;
        spec::set_limits(&mut spec, limits).map_err(of_spec(&container.id))?;
        self.records.save_spec(&container.pod.id, &container.id, &spec)?;
        container.update(&self.records, |record| record.resources.clone_from(limits))?;
        if let Some(template) = container.template() {
            container.set_template(Template::new(spec, template.filter));
        }
        Ok(())
    }

    /// Goes on logging into a new file of the old name.
    pub(crate) async fn reopen_log(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.table.container(id)?;
        if container.phase() != ContainerPhase::Running {
            return Err(Error::WrongState {
                kind: "container",
                id: container.id.clone(),
                state: "not running",
                needed: "only a running container writes a log",
            });
        }
        let path = container.record().log_path.clone();
        let (Some(path), Some(monitor)) = (path, container.pod.monitor()) else {
            return Err(Error::invalid("container_id", "the container has no log"));
        };
        let log = blocking(move || open_log(&path)).await?;
        monitor.reopen_log(&container.id, log).await.map_err(Error::runtime(
            "reopen the log of",
            "container",
            &container.id,
        ))
    }
}

fn of_spec(id: &str) -> impl FnOnce(oci_spec::OciSpecError) -> Error {
    move |source| Error::Spec { id: id.to_owned(), source: Arc::new(source) }
}

fn alive(container: &Container) -> Result<()> {
    match container.phase() {
        ContainerPhase::Created | ContainerPhase::Running => Ok(()),
        ContainerPhase::Creating | ContainerPhase::Exited(_) => Err(Error::WrongState {
            kind: "container",
            id: container.id.clone(),
            state: "not alive",
            needed: "limits are changed while it is created or running",
        }),
    }
}

/// What is given replaces what was.
fn merge(current: &mut Resources, wanted: Resources) {
    fn replace<T>(current: &mut Option<T>, wanted: Option<T>) {
        if wanted.is_some() {
            *current = wanted;
        }
    }
    replace(&mut current.cpu_period, wanted.cpu_period);
    replace(&mut current.cpu_quota, wanted.cpu_quota);
    replace(&mut current.cpu_shares, wanted.cpu_shares);
    replace(&mut current.memory_limit_bytes, wanted.memory_limit_bytes);
    replace(&mut current.memory_swap_limit_bytes, wanted.memory_swap_limit_bytes);
    replace(&mut current.cpuset_cpus, wanted.cpuset_cpus);
    replace(&mut current.cpuset_mems, wanted.cpuset_mems);
    for (size, limit) in wanted.hugepage_limits {
        match current.hugepage_limits.iter_mut().find(|(known, _)| *known == size) {
            Some((_, known)) => *known = limit,
            None => current.hugepage_limits.push((size, limit)),
        }
    }
    current.unified.extend(wanted.unified);
    if wanted.oom_score_adj != 0 {
        current.oom_score_adj = wanted.oom_score_adj;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_alone_is_memory_without_swap_unless_swap_was_spoken_of() {
        let of = |memory, swap| Resources {
            memory_limit_bytes: memory,
            memory_swap_limit_bytes: swap,
            ..Resources::default()
        };
        let check = |before: (Option<i64>, Option<i64>), wanted: (Option<i64>, Option<i64>), expected| {
            let mut resources = of(wanted.0, wanted.1);
            resources.take_swap_for_none(&of(before.0, before.1));
            assert_eq!(resources.memory_swap_limit_bytes, expected, "{before:?} {wanted:?}");
        };
        check((None, None), (Some(8), None), Some(8));
        check((None, None), (Some(8), Some(9)), Some(9));
        check((None, None), (None, None), None);
        check((Some(8), Some(8)), (Some(16), None), Some(16));
        check((Some(8), Some(8)), (Some(-1), None), Some(-1));
        check((Some(8), Some(9)), (Some(7), None), None);
        check((Some(8), None), (Some(7), None), None);
        let mut unified = of(Some(8), None);
        unified.unified.insert("memory.swap.max".to_owned(), "1".to_owned());
        unified.take_swap_for_none(&Resources::default());
        assert_eq!(unified.memory_swap_limit_bytes, None);
    }
}
