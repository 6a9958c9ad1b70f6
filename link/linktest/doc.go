// Package linktest holds what stands at the two sides of a link in tests: a Card that keeps
// what it receives, for tests of links, and a Link that keeps what is sent, for tests of
// cards; and frames for both.
package linktest
