// Package lspci has the real lspci decode a dump of a configuration space, and compares
// what it says with a golden file that holds for every version of it.
package lspci
