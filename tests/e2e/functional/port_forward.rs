//! PortForward over both transports.

use corten_tests::registry::NGINX;
use corten_tests::streaming::spdy::{Event, Spdy};
use corten_tests::streaming::{Link, Transport};
use corten_tests::{Container, Pod, Result, eventually, on_node};
use k8s_cri::v1 as wire;

pub(super) async fn connect(transport: Transport, pod: &Pod<'_>) -> Result<Spdy> {
    let request = wire::PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: Vec::new() };
    let url = pod.kubelet.cri().runtime.port_forward(request).await?.into_inner().url;
    let answer = match transport {
        Transport::Spdy => Link::spdy(&url, &["portforward.k8s.io"]).await?,
        Transport::WebSocket => Link::websocket(&url, &["SPDY/3.1+portforward.k8s.io"]).await?,
    };
    Ok(Spdy::new(answer.link()?))
}

/// The streams of one connection: for an error, and for the bytes.
async fn open(spdy: &mut Spdy, port: u16, request: u32) -> Result<(u32, u32)> {
    let (port, request) = (port.to_string(), request.to_string());
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request.as_str())];
    let error = spdy.open(&headers("error")).await?;
    spdy.end(error).await?;
    let data = spdy.open(&headers("data")).await?;
    Ok((error, data))
}

/// What comes on a connection until both of its streams have ended.
async fn rest(spdy: &mut Spdy, (error, data): (u32, u32)) -> Result<(Vec<u8>, String)> {
    let (mut bytes, mut text, mut open) = (Vec::new(), Vec::new(), vec![error, data]);
    while !open.is_empty() {
        match tokio::time::timeout(corten_tests::wait::PATIENCE * corten_tests::wait::slowness(), spdy.next())
            .await??
        {
            Event::Data(stream, more) if stream == data => bytes.extend(more),
            Event::Data(_, more) => text.extend(more),
            Event::End(stream) | Event::Reset(stream) => open.retain(|open| *open != stream),
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok((bytes, String::from_utf8(text)?))
}

/// Waits until somebody listens at a port in a container's network.
async fn listens(container: &Container<'_>, port: u16) -> Result {
    eventually("it listens", async || {
        let found = container.sh(&format!("netstat -ltn | grep ':{port} '; true")).await?;
        Ok((!found.is_empty()).then_some(()))
    })
    .await
}

/// A page, fetched through a port-forward; what it says, or what the error says.
pub(super) async fn page(spdy: &mut Spdy, port: u16, request: u32) -> Result<(String, String)> {
    let streams = open(spdy, port, request).await?;
    spdy.send(streams.1, b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").await?;
    let (bytes, error) = rest(spdy, streams).await?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), error))
}

#[test]
fn a_port_of_a_pod_is_reached_many_times_over_one_connection() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        pod.container().image(NGINX).start().await?;
        for transport in Transport::ALL {
            eventually("the page is served", async || {
                let mut spdy = connect(transport, &pod).await?;
                let (page, _) = page(&mut spdy, 80, 0).await?;
                Ok(page.contains("nginx in a pod").then_some(()))
            })
            .await?;
            let mut spdy = connect(transport, &pod).await?;
            for request in 0..20 {
                let (page, error) = page(&mut spdy, 80, request).await?;
                assert!(page.contains("nginx in a pod"), "{transport:?} {request}: {page} {error}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_port_that_nobody_listens_at_is_an_error_of_that_connection_alone() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let listener = pod.container().command(["nc", "-ll", "-p", "7000", "-e", "cat"]).start().await?;
        listens(&listener, 7000).await?;
        for transport in Transport::ALL {
            let mut spdy = connect(transport, &pod).await?;
            let streams = open(&mut spdy, 7001, 0).await?;
            let (bytes, error) = rest(&mut spdy, streams).await?;
            assert_eq!(bytes, b"");
            assert!(error.contains("7001") && error.contains("refused"), "{error}");
            let streams = open(&mut spdy, 7000, 1).await?;
            spdy.send(streams.1, b"through").await?;
            spdy.end(streams.1).await?;
            let (bytes, error) = rest(&mut spdy, streams).await?;
            assert_eq!(
                (String::from_utf8(bytes)?.as_str(), error.as_str()),
                ("through", ""),
                "{transport:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_service_of_ipv6_alone_is_reached() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let serve = "mkdir /tmp/web; echo six > /tmp/web/page; exec httpd -f -p '[::1]:7006' -h /tmp/web";
        let listener = pod.container().sh(serve).start().await?;
        listens(&listener, 7006).await?;
        let mut spdy = connect(Transport::Spdy, &pod).await?;
        let streams = open(&mut spdy, 7006, 0).await?;
        spdy.send(streams.1, b"GET /page HTTP/1.0\r\n\r\n").await?;
        let (page, error) = rest(&mut spdy, streams).await?;
        assert!(page.ends_with(b"six\n"), "{} {error}", String::from_utf8_lossy(&page));
        Ok(())
    });
}

#[test]
fn a_pod_in_the_nodes_network_is_forwarded_to_the_nodes_loopback() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().host_network().run().await?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let served = tokio::task::spawn_blocking(move || {
            let (mut socket, _) = listener.accept()?;
            std::io::Write::write_all(&mut socket, b"the node")
        });
        let mut spdy = connect(Transport::Spdy, &pod).await?;
        let streams = open(&mut spdy, port, 0).await?;
        assert_eq!(rest(&mut spdy, streams).await?, (b"the node".to_vec(), String::new()));
        Ok(served.await??)
    });
}
