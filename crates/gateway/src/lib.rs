//! The HTTP door: a cluster of workers that serves the page, the API and the live pictures.
