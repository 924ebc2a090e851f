//! Registries as people run them: Debian's docker-registry, with passwords, tokens, TLS, and as a cache.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use corten_tests::distribution::{Distribution, PASSWORD, Settings, USER, pem};
use corten_tests::image::{Image, Layer};
use corten_tests::kubelet::spec;
use corten_tests::origin::{Fault, Origin};
use corten_tests::proxy::Proxy;
use corten_tests::tokens::{IDENTITY_TOKEN, Manner, TokenServer};
use corten_tests::{Kubelet, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;
use serde_json::json;

/// A node that finds certificates, hosts and credentials in a directory.
fn node_with(dir: &Path) -> Setup {
    let dir = dir.display();
    let config = format!(
        "[image]\ncerts_dir = \"{dir}/certs.d\"\nhosts_dir = \"{dir}/hosts.d\"\nauth_file = \"{dir}/auth.json\"\n"
    );
    Setup { config }
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("corten-registries-").tempdir().context("make a directory")
}

/// What containers-certs.d(5) and containers-auth.json(5) say of a registry.
fn write_secrets(dir: &Path, registry: &Distribution, password: &str) -> Result {
    let certs = dir.join("certs.d").join(registry.host());
    fs::create_dir_all(&certs)?;
    fs::copy(pem("ca.crt"), certs.join("ca.crt"))?;
    let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
    let auths = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.host());
    fs::write(dir.join("auth.json"), auths)?;
    Ok(())
}

async fn pull_as(kubelet: &Kubelet, image: &str, auth: wire::AuthConfig) -> Result<String, tonic::Status> {
    let request = wire::PullImageRequest { image: Some(spec(image)), auth: Some(auth), sandbox_config: None };
    Ok(kubelet.cri().images.pull_image(request).await?.into_inner().image_ref)
}

fn password(password: &str) -> wire::AuthConfig {
    wire::AuthConfig { username: USER.to_owned(), password: password.to_owned(), ..Default::default() }
}

#[test]
fn a_private_authority_and_a_password_take_three_lines() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let settings = Settings { password: true, certificate: Some("server.crt"), ..Default::default() };
        let registry = Distribution::start(&settings)?;
        write_secrets(dir.path(), &registry, PASSWORD)?;
        kubelet.pull(&registry.image()).await?;
        Ok(())
    });
}

#[test]
fn a_wrong_password_an_unknown_host_and_an_expired_certificate_say_what_to_look_at() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let check = async |image: &str, parts: &[&str]| {
            let status = kubelet.pull(image).await.unwrap_err();
            for part in parts {
                assert!(status.message().contains(part), "{part:?} is missing: {status}");
            }
        };
        let settings = Settings { password: true, certificate: Some("server.crt"), ..Default::default() };
        let registry = Distribution::start(&settings)?;
        write_secrets(dir.path(), &registry, "wrong")?;
        check(&registry.image(), &[&registry.host(), "does not accept", "auth.json"]).await;
        fs::remove_file(dir.path().join("auth.json"))?;
        check(&registry.image(), &[&registry.host(), "no credentials", "image.auth_file"]).await;

        check("registry.invalid/app:1", &["registry.invalid", "dns error", "registries.conf"]).await;

        let settings = Settings { certificate: Some("expired.crt"), ..Default::default() };
        let expired = Distribution::start(&settings)?;
        write_secrets(dir.path(), &expired, PASSWORD)?;
        check(&expired.image(), &[&expired.host(), "expired", "renew", "registries.conf"]).await;

        let settings = Settings { certificate: Some("server.crt"), ..Default::default() };
        let unknown = Distribution::start(&settings)?;
        check(&unknown.image(), &[&unknown.host(), "certs.d", "ca.crt"]).await;
        Ok(())
    });
}

#[test]
fn credentials_of_the_request_come_in_every_form() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let registry = Distribution::start(&Settings { password: true, ..Default::default() })?;
        let image = registry.image();
        pull_as(kubelet, &image, password(PASSWORD)).await?;
        let auth = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        pull_as(kubelet, &image, wire::AuthConfig { auth, ..Default::default() }).await?;
        let addressed = |server_address: String| wire::AuthConfig { server_address, ..password(PASSWORD) };
        pull_as(kubelet, &image, addressed(format!("http://{}/v1/", registry.host()))).await?;
        let status = pull_as(kubelet, &image, addressed("elsewhere.io".to_owned())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
        assert!(status.message().contains("are for elsewhere.io"), "{status}");
        let status = pull_as(kubelet, &image, password("wrong-canary")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
        let daemon = kubelet.node().daemon_pid()?;
        let of_process = |file: &str| fs::read(format!("/proc/{daemon}/{file}"));
        let process = [of_process("environ")?, of_process("cmdline")?].concat();
        let process = String::from_utf8_lossy(&process);
        let said = format!("{status} {process} {}", kubelet.node().log_since(0));
        let encoded = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        assert!(
            [PASSWORD, "canary", &encoded].iter().all(|secret| !said.contains(secret)),
            "a secret is told"
        );
        Ok(())
    });
}

#[test]
fn tokens_are_got_from_servers_like_docker_hubs_and_harbors() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let hub = TokenServer::start(Manner::DockerHub)?;
        let settings =
            |server: &TokenServer| Settings { token_server: Some(server.realm()), ..Default::default() };
        let registry = Distribution::start(&settings(&hub))?;
        kubelet.pull(&registry.image()).await?;
        let first = hub.requests();
        assert!(first[0].contains("scope=repository%3Ae2e-test-images%2Fbusybox%3Apull"), "{first:?}");
        kubelet.pull(&registry.image()).await?;
        assert_eq!(hub.requests().len(), first.len(), "the token is kept");

        let harbor = TokenServer::start(Manner::Harbor)?;
        let registry = Distribution::start(&settings(&harbor))?;
        let status = kubelet.pull(&registry.image()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
        pull_as(kubelet, &registry.image(), password(PASSWORD)).await?;
        let identity_token = IDENTITY_TOKEN.to_owned();
        pull_as(kubelet, &registry.image(), wire::AuthConfig { identity_token, ..Default::default() })
            .await?;
        assert!(harbor.requests().iter().any(|line| line.starts_with("POST /service/token ")));
        Ok(())
    });
}

#[test]
fn client_certificates_are_shown() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let settings =
            Settings { certificate: Some("server.crt"), client_certificates: true, ..Default::default() };
        let registry = Distribution::start(&settings)?;
        write_secrets(dir.path(), &registry, PASSWORD)?;
        let certs = dir.path().join("certs.d").join(registry.host());
        let status = kubelet.pull(&registry.image()).await.unwrap_err();
        assert!(status.message().contains("client.cert"), "{status}");
        fs::copy(pem("server.crt"), certs.join("client.cert"))?;
        fs::copy(pem("server.key"), certs.join("client.key"))?;
        kubelet.pull(&registry.image()).await?;
        Ok(())
    });
}

#[test]
fn a_cache_that_hosts_toml_names_is_pulled_through() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        let upstream = Distribution::start(&Settings::default())?;
        let settings = Settings {
            cache_of: Some(upstream.host()),
            certificate: Some("server.crt"),
            ..Default::default()
        };
        let cache = Distribution::start(&settings)?;
        let hosts = dir.path().join("hosts.d/cached.example");
        fs::create_dir_all(&hosts)?;
        fs::copy(pem("ca.crt"), hosts.join("ca.crt"))?;
        let text = format!("[host.\"https://{}\"]\nca = \"ca.crt\"\n", cache.host());
        fs::write(hosts.join("hosts.toml"), text)?;
        let image = "cached.example/e2e-test-images/busybox:1.29-2";
        let id = kubelet.pull(image).await?;
        let status = kubelet.image_status(image).await?.context("the image by the name it was pulled by")?;
        assert_eq!(status.id, id);
        assert_eq!(status.repo_tags, [image]);
        Ok(())
    });
}

/// Hosts that only the proxy knows: of them one speaks TLS, one does not, and one is not to go through it.
#[test]
fn proxies_of_the_environment_are_asked_but_for_their_exceptions() {
    let dir = scratch().unwrap();
    let conf = dir.path().join("registries.conf");
    let text = ["secure.test", "plain.test"]
        .map(|host| format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"));
    fs::write(&conf, text.concat()).unwrap();
    let setup = Setup { config: format!("[image]\nregistries_conf = \"{}\"\n", conf.display()) };
    on_own_node(&setup, async |kubelet| {
        let secure =
            Distribution::start(&Settings { certificate: Some("server.crt"), ..Default::default() })?;
        let origin = Origin::start()?;
        let offered = origin.offer("app", &Image::new(&json!({}), vec![Layer::new().file("a", b"1")])?);
        let plain = offered.split('/').next().unwrap_or_default();
        let routes = [("secure.test:443", secure.host()), ("plain.test:80", plain.to_owned())];
        let routes = routes.map(|(host, address)| Ok((host.to_owned(), address.parse()?)));
        let proxy = Proxy::start(routes.into_iter().collect::<Result<_>>()?)?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon_with(&[
            ("HTTP_PROXY", &proxy.url()),
            ("HTTPS_PROXY", &proxy.url()),
            ("NO_PROXY", "direct.test,10.0.0.0/8"),
        ])?;
        kubelet.pull("secure.test/e2e-test-images/busybox:1.29-2").await?;
        kubelet.pull("plain.test/app:latest").await?;
        let seen = proxy.seen();
        assert!(seen.iter().any(|line| line == "CONNECT secure.test:443"), "{seen:?}");
        assert!(seen.iter().any(|line| line.starts_with("GET http://plain.test/v2/app/blobs/")), "{seen:?}");
        let status = kubelet.pull("direct.test/app:1").await.unwrap_err();
        assert!(status.message().contains("dns error"), "{status}");
        // One on the loopback interface is reached without, whatever the environment says.
        kubelet.pull(&offered).await?;
        let seen = proxy.seen();
        assert!(
            !seen.iter().any(|line| line.contains("direct.test") || line.contains("127.0.0.1")),
            "{seen:?}"
        );
        let status = kubelet.pull("unknown.test/app:1").await.unwrap_err();
        assert!(status.message().contains("unknown.test"), "{status}");
        Ok(())
    });
}

/// The three lines of the README, as they stand there.
#[test]
fn the_three_lines_of_the_readme_are_enough() {
    let dir = scratch().unwrap();
    let config = format!("[image]\ncerts_dir = \"{}/containers/certs.d\"\n", dir.path().display());
    on_own_node(&Setup { config }, async |kubelet| {
        let settings = Settings { password: true, certificate: Some("server.crt"), ..Default::default() };
        let registry = Distribution::start(&settings)?;
        assert!(kubelet.pull(&registry.image()).await.is_err(), "without them it is closed");
        let readme = fs::read_to_string(host::repository().join("README.md"))?;
        let section = readme.split("takes three lines:").nth(1).context("the lines in the README")?;
        let lines = section.split("```").nth(1).context("a block of lines")?.trim();
        assert_eq!(lines.lines().count(), 3, "{lines}");
        fs::copy(pem("ca.crt"), dir.path().join("ca.crt"))?;
        let (node, dir) = (kubelet.node().dir().display(), dir.path().display());
        let script = lines
            .replace("registry.example.com:5000", &registry.host())
            .replace("USER:PASSWORD", &format!("{USER}:{PASSWORD}"))
            .replace("/etc/corten/config.toml.d", &format!("{node}/config.toml.d"))
            .replace("/etc/containers", &format!("{dir}/containers"))
            .replace("/etc/corten", &dir.to_string());
        let output = Command::new("sh").args(["-ec", &format!("cd {dir}\n{script}")]).output()?;
        ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        kubelet.pull(&registry.image()).await?;
        Ok(())
    });
}

#[test]
fn layers_are_unpacked_in_the_configured_cgroup() {
    let path = format!("/corten-test-pulls-{}", std::process::id());
    let setup = Setup { config: format!("[image]\npull_cgroup = \"{path}\"\n") };
    on_own_node(&setup, async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("file", &vec![1; 1 << 20])])?;
        let reference = origin.offer("counted", &image);
        origin.spoil_blob("counted", &image.blobs[0].0, Fault::Stalled);
        let inside = eventually("a process in the cgroup", async || {
            let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
                let text = fs::read_to_string(entry.path().join("cgroup")).ok()?;
                // It joins one hierarchy after the other, and not those of other people's, such as systemd's own.
                let mut ours = text
                    .lines()
                    .filter(|line| ["0::", ":memory:", ":cpu:"].iter().any(|name| line.contains(name)))
                    .peekable();
                (ours.peek().is_some() && ours.all(|line| line.ends_with(&path))).then_some(())
            });
            Ok(processes.into_iter().next())
        });
        let pull = kubelet.pull(&reference);
        tokio::select! {
            pulled = pull => anyhow::bail!("the pull ended early: {pulled:?}"),
            found = inside => found?,
        }
        origin.release();
        kubelet.pull(&reference).await?;
        Ok(())
    });
    assert_eq!(corten_tests::cgroup::remove(&path).unwrap(), [""; 0], "nothing is in it");
}

#[test]
fn explain_says_whom_a_pull_asks_and_why() {
    let dir = scratch().unwrap();
    on_own_node(&node_with(dir.path()), async |kubelet| {
        fs::create_dir_all(dir.path().join("hosts.d/cached.example"))?;
        let text = "[host.\"https://mirror.example\"]\ncapabilities = [\"pull\"]\n";
        fs::write(dir.path().join("hosts.d/cached.example/hosts.toml"), text)?;
        let auths = r#"{"auths": {"mirror.example": {"auth": "Y2FuYXJ5OmNhbmFyeQ=="}}}"#;
        fs::write(dir.path().join("auth.json"), auths)?;
        let config = kubelet.node().config_file().display().to_string();
        let output =
            kubelet.node().cli(&["explain", "--config", &config, "cached.example/app:1"])?.output()?;
        let text = String::from_utf8(output.stdout)?;
        for part in [
            "1. https://mirror.example/v2/app",
            "hosts.toml",
            "(\"mirror.example\")",
            "2. https://cached.example",
        ] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        assert!(!text.contains("canary"), "{text}");
        Ok(())
    });
}
