//! Writes the messages and the server of containerd's snapshots service, as Rust, to where the program has them.
//!
//! `just protocol` runs it, from the top of the source. What it writes is checked in, so nobody else needs a compiler
//! for protocol buffers, and this one is written in Rust.

use std::error::Error;
use std::fs;
use std::path::Path;

const SNAPSHOTS: &str = "github.com/containerd/containerd/api/services/snapshots/v1/snapshots.proto";

/// Written before what is generated: the definitions have this licence, and so has what is made of them.
const HEADER: &str = "\
// Copyright The containerd Authors.
//
// Licensed under the Apache License, Version 2.0 (the \"License\");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//     http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an \"AS IS\" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.
//
// Made from the definitions in proto/ by `just protocol`; changes made here are lost.

";

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile([SNAPSHOTS], ["proto"])?;
    let made = Path::new("proto/target/made");
    fs::create_dir_all(made)?;
    tonic_prost_build::configure().build_client(false).build_transport(false).out_dir(made).compile_fds(files)?;
    let destination = Path::new("src/bin/layerstore/containerd/protocol");
    for (name, to) in [("containerd.types.rs", "types.rs"), ("containerd.services.snapshots.v1.rs", "snapshots.rs")] {
        // The modules of the packages are siblings there, not five levels apart.
        let code = fs::read_to_string(made.join(name))?.replace("super::super::super::types::", "super::types::");
        fs::write(destination.join(to), format!("{HEADER}{code}"))?;
    }
    Ok(())
}
