//! What the server says about itself.

use crate::server::Service;
use std::fmt::Write;

/// Returns the sections that are asked for, or all of them.
pub fn text(service: &Service, asked: &[String]) -> String {
    let is_asked = |name: &str| {
        asked.is_empty() || asked.iter().any(|asked| [name, "all", "everything", "default"].contains(&&**asked))
    };
    let mut text = String::new();
    for (name, lines) in sections(service) {
        if is_asked(&name.to_lowercase()) {
            let separator = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{separator}# {name}\r\n");
            for (name, value) in lines {
                let _ = write!(text, "{name}:{value}\r\n");
            }
        }
    }
    text
}

type Lines = Vec<(&'static str, String)>;

fn sections(service: &Service) -> [(&'static str, Lines); 7] {
    let server = vec![
        ("kv_version", env!("CARGO_PKG_VERSION").to_string()),
        ("store", service.kind.name().to_string()),
        ("process_id", std::process::id().to_string()),
        ("tcp_port", service.port.to_string()),
        ("uptime_in_seconds", service.started.elapsed().as_secs().to_string()),
    ];
    let clients = vec![("connected_clients", service.connections.len().to_string())];
    let stats = vec![
        ("total_connections_received", service.accepted().to_string()),
        ("total_commands_processed", service.commands.sum().to_string()),
    ];
    let keys = match service.store.len() {
        0 => Vec::new(),
        keys => vec![("db0", format!("keys={keys}"))],
    };
    [
        ("Server", server),
        ("Clients", clients),
        ("Memory", memory()),
        ("CPU", cpu()),
        ("Stats", stats),
        ("Store", service.store.details()),
        ("Keyspace", keys),
    ]
}

/// The memory of the process in bytes, where the system tells it (Linux).
fn memory() -> Lines {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| -> Option<String> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some((kibibytes * 1024).to_string())
    };
    [("used_memory_rss", bytes("VmRSS:")), ("used_memory_peak", bytes("VmHWM:"))]
        .into_iter()
        .filter_map(|(name, bytes)| Some((name, bytes?)))
        .collect()
}

/// The processor time of the process in seconds, where the system tells it (Linux).
fn cpu() -> Lines {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything. User and system time are the twelfth and thirteenth
    // field after it, in hundredths of a second.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    ["used_cpu_user", "used_cpu_sys"]
        .into_iter()
        .filter_map(|name| Some((name, format!("{:.2}", fields.next()?.parse::<f64>().ok()? / 100.0))))
        .collect()
}
