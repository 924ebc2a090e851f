//! What is different about containers of other runtimes: their plans, and the bundle that is theirs.

use std::sync::Arc;

use oci_spec::runtime::{Process, Spec};
use runtime::external::Bundle;
use runtime::seccomp::Program;
use runtime::{Executor, plan};

use super::{Container, Template};
use crate::error::{Error, Result, chain};
use crate::node::Node;

/// How a container is to be made.
pub(super) struct Making {
    pub executor: Executor,
    pub plan: Vec<u8>,
    /// Compiled where the filter is ours to install.
    pub filter: Option<Arc<Program>>,
}

impl Node {
    /// The plan of a container's init.
    pub(super) fn making(&self, container: &Container, spec: &Spec, rootfs: &plan::Rootfs) -> Result<Making> {
        if let Some(external) = self.handlers.external(&container.pod.config.handler)? {
            external.check(&container.config, spec)?;
            let mut spec = spec.clone();
            external.pass_annotations(&container.pod.config, &mut spec);
            let plan = external.runtime.create(&container.bundle(), &spec, rootfs);
            let plan = plan.map_err(external.failed())?;
            return Ok(Making { executor: external.runtime.executor(), plan, filter: None });
        }
        let filter = self.filters.program(spec)?;
        let plan = plan::container(spec, rootfs, filter.as_deref())
            .map_err(|error| Error::invalid("config", chain(&error)))?;
        Ok(Making { executor: Executor::Native, plan, filter })
    }

    /// The plan of a further process.
    pub(super) fn process_plan(
        &self,
        container: &Container,
        template: &Template,
        process: &Process,
    ) -> Result<Vec<u8>> {
        if let Some(external) = self.handlers.external(&container.pod.config.handler)? {
            let plan = external.runtime.exec(&container.bundle(), &template.spec, process);
            return plan.map_err(external.failed());
        }
        plan::exec(&template.spec, process, template.filter.as_deref())
            .map_err(|error| Error::invalid("cmd", chain(&error)))
    }

    /// Has another runtime forget an ended container, and takes its bundle down. Nothing for our own.
    pub(crate) async fn release_bundle(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if let Ok(None) = self.handlers.external(&container.pod.config.handler) {
            return Ok(());
        }
        let (node, ended) = (self.clone(), container.clone());
        let work = || async move {
            let (bundle, name) = (ended.bundle(), ended.pod.config.handler.clone());
            let removed = match node.handlers.external(&name) {
                Ok(Some(external)) => external.runtime.delete(&bundle).await,
                // The configuration does not know the runtime any more.
                _ => bundle.remove(),
            };
            removed.map_err(|source| Error::Handler { name, source: Arc::new(source) })
        };
        self.releasing_bundles.run(container.id.clone(), work).await
    }
}

impl Container {
    fn bundle(&self) -> Bundle {
        Bundle::new(&self.pod.dir, &self.id)
    }
}
