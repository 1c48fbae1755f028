//! Apache RocketMQ's own NameServer and broker, to meet ours.

use std::fs;
use std::path::Path;

use crate::java;
use crate::server::Server;

/// Starts Apache's NameServer on this port of 127.0.0.1.
pub fn nameserver(name: &str, dir: &Path, port: u16) -> Server {
    let conf = dir.join(format!("{name}.conf"));
    fs::write(&conf, format!("listenPort={port}\nbindAddress=127.0.0.1\n"))
        .expect("a file for the configuration");
    start(
        name,
        dir,
        128,
        "org.apache.rocketmq.namesrv.NamesrvStartup",
        &conf,
    )
}

/// Starts Apache's broker `name` on this port of 127.0.0.1 and the one two below, registered with these NameServers. Sends
/// are acknowledged when they are on disk.
pub fn broker(name: &str, dir: &Path, port: u16, nameservers: &str, settings: &[String]) -> Server {
    let conf = dir.join(format!("{name}.conf"));
    let store = dir.join(name);
    let mut lines = vec![
        "brokerClusterName=DefaultCluster".to_owned(),
        format!("brokerName={name}"),
        "brokerId=0".to_owned(),
        "brokerIP1=127.0.0.1".to_owned(),
        "bindAddress=127.0.0.1".to_owned(),
        format!("listenPort={port}"),
        format!("haListenPort={}", port + 1),
        format!("namesrvAddr={nameservers}"),
        format!("storePathRootDir={}", store.display()),
        format!("storePathCommitLog={}", store.join("commitlog").display()),
        "flushDiskType=SYNC_FLUSH".to_owned(),
        "mappedFileSizeCommitLog=67108864".to_owned(),
        "diskMaxUsedSpaceRatio=95".to_owned(),
        "autoCreateTopicEnable=true".to_owned(),
        "waitTimeMillsInSendQueue=10000".to_owned(),
        "enablePropertyFilter=true".to_owned(),
    ];
    lines.extend_from_slice(settings);
    fs::write(&conf, lines.join("\n")).expect("a file for the configuration");
    start(
        name,
        dir,
        512,
        "org.apache.rocketmq.broker.BrokerStartup",
        &conf,
    )
}

fn start(name: &str, dir: &Path, heap_mb: usize, class: &str, conf: &Path) -> Server {
    let mut args = java::jvm_args(
        heap_mb,
        dir,
        &["rocketmq.broker.diskSpaceWarningLevelRatio=0.95"],
        class,
    );
    args.extend(["-c".to_owned(), conf.display().to_string()]);
    Server::start(name, Path::new("java"), args, dir)
}
