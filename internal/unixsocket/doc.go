// Package unixsocket makes listening unix sockets: it replaces the file that a dead server left
// behind, leaves alone what is not one, and says in its errors what the errno does not.
package unixsocket
