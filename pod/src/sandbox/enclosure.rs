//! The enclosure of a pod whose handler is a runtime with sandboxes: made when the pod's network is up, since the
//! runtime takes the interfaces from there, and taken down with the pod.
//!
//! To the monitor it is a container with the pod's id, whose end is the pod's. To kubelets it is not a container.

use std::sync::Arc;

use runtime::cgroup::Limits;
use runtime::external::Bundle;
use runtime::{ContainerOrder, Executor, PidNamespace, Placeholder, Stdin};

use super::{Sandbox, files};
use crate::container::parse_cgroup;
use crate::error::{Error, Result, chain};
use crate::node::{Node, blocking};
use crate::spec::enclosure;

impl Node {
    /// Makes and starts the enclosure, if the pod's handler has such.
    pub(crate) async fn enclose(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let external = self.handlers.external(&pod.config.handler)?;
        let (Some(_), Some(monitor)) = (external.filter(|external| external.encloses()), pod.monitor())
        else {
            return Ok(());
        };
        let failed = || Error::runtime("start", "pod", &pod.id);
        let placeholder = self.runtime.placeholder().await.map_err(failed())?;
        let placeholder_pid = placeholder.as_ref().map(Placeholder::pid);
        let pause_pid = monitor.pause_pid();
        let (node, enclosed) = (self.clone(), pod.clone());
        let order = blocking(move || node.enclosure_order(&enclosed, pause_pid, placeholder_pid)).await?;
        monitor.create(order).await.map_err(failed())?;
        drop(placeholder);
        monitor.start(&pod.id).await.map(drop).map_err(failed())
    }

    fn enclosure_order(
        &self,
        pod: &Sandbox,
        pause_pid: i32,
        placeholder: Option<u32>,
    ) -> Result<ContainerOrder> {
        let external = self.handlers.external(&pod.config.handler)?;
        let external = external.ok_or_else(|| Error::UnknownHandler { name: pod.config.handler.clone() })?;
        let cgroups = self.runtime.cgroups();
        let place = cgroups
            .place(pod.config.cgroup_parent.as_deref(), &pod.id)
            .map_err(|error| Error::invalid("linux.cgroup_parent", chain(&error)))?;
        // The record first, so that what follows can be taken down after a crash.
        pod.update(&self.records, |record| record.enclosure = Some(place.to_string()))?;
        let netns = pod.netns();
        let inputs = enclosure::Inputs {
            id: &pod.id,
            pod: &pod.config,
            hostname: &files::hostname(&pod.config)?,
            netns: netns.as_deref(),
            pause_pid,
            cgroup: &place.to_string(),
        };
        let mut spec = enclosure::build(&inputs)?;
        external.pass_annotations(&pod.config, &mut spec);
        let plan = external.runtime.enclose(&bundle(pod), &spec).map_err(external.failed())?;
        // The pod's limits hold for it: they are the kubelet's, one level up.
        let cgroup = match placeholder {
            Some(pid) => cgroups.create_scope(&place, &Limits::default(), pid),
            None => cgroups.create(&place, &Limits::default()),
        };
        let cgroup = cgroup.and_then(|cgroup| cgroup.handles()).map_err(failed("make", pod))?;
        Ok(ContainerOrder {
            id: pod.id.clone(),
            executor: Executor::Enclosure,
            plan,
            pid_namespace: PidNamespace::Own,
            cgroup,
            log: None,
            log_line_bytes: self.settings().log_line_bytes,
            stdin: Stdin::Closed,
            tty: false,
        })
    }

    /// Kills what is left of an enclosure whose monitor is gone; fine when there is none.
    pub(crate) async fn kill_enclosure(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let Some(place) = pod.enclosure() else { return Ok(()) };
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || {
            let killed = node.runtime.cgroups().open(&parse_cgroup(&place)?).kill();
            killed.map_err(failed("kill", &pod))
        })
        .await
    }

    /// Takes down what is left of an enclosure that has ended; fine when there is none. Goes on past failures.
    pub(crate) async fn release_enclosure(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let Some(place) = pod.enclosure() else { return Ok(()) };
        let mut failures = Vec::new();
        self.kill_enclosure(pod).await.unwrap_or_else(|error| failures.push(error));
        // The runtime would look for the enclosure of a container that it still knows.
        for container in self.table.containers_of(&pod.id) {
            self.release_bundle(&container).await.unwrap_or_else(|error| failures.push(error));
        }
        let (name, bundle) = (&pod.config.handler, bundle(pod));
        let removed = match self.handlers.external(name) {
            Ok(Some(external)) => external.runtime.delete(&bundle).await,
            // The configuration does not know the runtime any more.
            _ => bundle.remove(),
        };
        if let Err(source) = removed {
            failures.push(Error::Handler { name: name.clone(), source: Arc::new(source) });
        }
        let (node, of) = (self.clone(), pod.clone());
        let removed = blocking(move || {
            let (cgroups, path) = (node.runtime.cgroups(), parse_cgroup(&place)?);
            let removed = cgroups.open(&path).remove().and_then(|()| cgroups.remove_empty_parents(&path));
            removed.map_err(failed("remove", &of))
        });
        removed.await.unwrap_or_else(|error| failures.push(error));
        Error::teardown("pod", &pod.id, failures)
    }
}

fn bundle(pod: &Sandbox) -> Bundle {
    Bundle::new(&pod.dir, &pod.id)
}

fn failed(operation: &'static str, pod: &Sandbox) -> impl FnOnce(runtime::cgroup::Error) -> Error + use<> {
    let id = pod.id.clone();
    move |source| Error::Cgroup { operation, id, source: Arc::new(source) }
}
