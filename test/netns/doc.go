// Package netns makes network namespaces for tests: a machine's worth of interfaces,
// addresses and ports, in which a test runs programs and opens sockets of its own. It needs
// root. A namespace vanishes with everything in it when nothing uses it any more, also after
// a test that was killed.
package netns
