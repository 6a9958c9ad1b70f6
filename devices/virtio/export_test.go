package virtio

// Settle waits until the control goroutine of the client has followed the registers as they
// are now.
func (f *Function) Settle() {
	done := make(chan struct{})
	h := f.host.Load()
	h.ask(func(r *request) { r.tasks = append(r.tasks, func() { close(done) }) })
	select {
	case <-done:
	case <-h.done:
	}
}
