// Package stacks makes what Go prints of goroutines readable.
package stacks
