//! Overlay mounts: what this kernel can do, a plan, and carrying it out.
