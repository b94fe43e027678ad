//! A real nginx, which serves files and keeps what an orchestrator answered.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::Instant,
};

use crate::{
    service::PATIENCE,
    support::{Home, free_address},
};

/// It runs for as long as this lives.
pub(crate) struct Nginx {
    child: Child,
    /// Serves the files in `nginx/www` of the home.
    pub(crate) files: String,
    /// Asks the orchestrator, and answers again what it was answered.
    pub(crate) cache: String,
}

impl Nginx {
    pub(crate) fn start(home: &Home, orchestrator: &str) -> Self {
        let (files, cache) = (free_address(), free_address());
        fs::create_dir_all(home.path("nginx/www")).unwrap();
        let config = format!(
            "daemon off;
             master_process off; # as root it would give up what the home asks for
             pid nginx.pid;
             error_log error.log;
             events {{}}
             http {{
                 log_format cache '$upstream_cache_status $request_uri';
                 client_body_temp_path body;
                 fastcgi_temp_path fastcgi;
                 scgi_temp_path scgi;
                 uwsgi_temp_path uwsgi;
                 proxy_temp_path proxy;
                 proxy_cache_path cache keys_zone=leases:1m;
                 server {{
                     listen {files};
                     access_log off;
                     root www;
                 }}
                 server {{
                     listen {cache};
                     access_log access.log cache;
                     location / {{
                         proxy_pass http://{orchestrator};
                         proxy_cache leases;
                     }}
                 }}
             }}"
        );
        fs::write(home.path("nginx/nginx.conf"), config).unwrap();
        // Debian keeps it out of the `PATH` of who is not root.
        let mut nginx = home.program("/usr/sbin/nginx");
        nginx.arg("-p").arg(home.path("nginx")).args(["-c", "nginx.conf", "-e", "error.log"]).stdout(Stdio::null());
        let mut child = nginx.spawn().expect("`nginx`: `cargo xtask test` installs it");
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&cache).is_err() {
            let log = || fs::read_to_string(home.path("nginx/error.log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "it does not start: {}", log());
            thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { child, files, cache }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
