package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// server is a `vfu serve nvme` with one device.
type server struct {
	cmd    *exec.Cmd
	socket string
}

// startServer starts one and waits until it is ready. What it logs is added to a file.
func startServer(ctx context.Context, scratch, log, options string) (*server, error) {
	program := filepath.Join(scratch, "vfu")
	if _, err := os.Stat(program); err != nil {
		if output, err := exec.CommandContext(ctx, "go", "build", "-o", program, "vfiouser/cmd/vfu").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build: %w: %s", err, output)
		}
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s := &server{socket: filepath.Join(scratch, "disk.sock")}
	s.cmd = exec.Command(program, append([]string{"serve", "nvme", "--socket", s.socket}, strings.Fields(options)...)...)
	s.cmd.Stderr = file
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if !bufio.NewScanner(stdout).Scan() {
		s.stop()
		return nil, fmt.Errorf("the server did not start, see %s", log)
	}
	return s, nil
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM) // (fails only if it has ended already)
	s.cmd.Wait()
}
