// Package profile reads what `go test -coverprofile` writes.
package profile
