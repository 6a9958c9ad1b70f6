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

// Hold keeps the control goroutine of the client from following the registers until release.
func (f *Function) Hold() (release func()) {
	held, done := make(chan struct{}), make(chan struct{})
	f.host.Load().ask(func(r *request) { r.tasks = append(r.tasks, func() { close(held); <-done }) })
	<-held
	return func() { close(done) }
}
