package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"vfiouser/block"
	"vfiouser/cmd/vfu/internal/control"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

// The requests of the control socket.
const (
	requestStatus          = "status"
	requestNamespaceList   = "namespace-list"
	requestNamespaceAdd    = "namespace-add"
	requestNamespaceRemove = "namespace-remove"
	requestNamespaceResize = "namespace-resize"
	requestFilterList      = "filter-list"
	requestFilterSet       = "filter-set"
	requestPowerCut        = "power-cut"
	requestPowerOn         = "power-on"
)

// controls serves the requests for a process's devices.
type controls struct {
	started time.Time
	devices []controlled
}

// controlled is a device of the process.
type controlled struct {
	place    string
	kind     string
	endpoint *engine.Endpoint
	served
}

func (c *controls) handlers() map[string]control.Handler {
	return map[string]control.Handler{
		requestStatus:          taking(c.status),
		requestNamespaceList:   taking(c.listNamespaces),
		requestNamespaceAdd:    taking(c.addNamespace),
		requestNamespaceRemove: taking(c.removeNamespace),
		requestNamespaceResize: taking(c.resizeNamespace),
		requestFilterList:      taking(c.listFilters),
		requestFilterSet:       taking(c.setFilter),
		requestPowerCut:        taking(c.cutPower),
		requestPowerOn:         taking(c.powerOn),
	}
}

// taking makes a handler of a function that takes arguments of a type.
func taking[T any](serve func(*T) (any, error)) control.Handler {
	return func(data json.RawMessage) (any, error) {
		var arguments T
		if err := control.Arguments(data, &arguments); err != nil {
			return nil, err
		}
		return serve(&arguments)
	}
}

// nothing are the arguments of requests that have none.
type nothing struct{}

// target are the arguments that say which device is meant.
type target struct {
	Device string `json:"device,omitempty"` // where it is served; may be left out if it is the only drive
}

// drive is a device with its namespaces.
type drive struct {
	place string
	*subsystem
}

// drives are the drives that a target means, each subsystem once: all if it names none.
func (c *controls) drives(t target) (list []drive, err error) {
	found := t.Device == ""
	seen := make(map[*subsystem]bool)
	for _, d := range c.devices {
		if t.Device != "" && !samePlace(t.Device, d.place) {
			continue
		}
		found = true
		if d.subsystem != nil && !seen[d.subsystem] {
			seen[d.subsystem] = true
			list = append(list, drive{d.place, d.subsystem})
		}
	}
	switch {
	case !found:
		return nil, control.Errorf(control.Missing, "no device is served on %s", t.Device)
	case len(list) == 0 && t.Device != "":
		return nil, control.Errorf(control.Refused, "what is served on %s has no namespaces", t.Device)
	case len(list) == 0:
		return nil, control.Errorf(control.Refused, "no device of this process has namespaces")
	}
	return list, nil
}

// drive is the one drive that is meant.
func (c *controls) drive(t target) (drive, error) {
	list, err := c.drives(t)
	if err != nil {
		return drive{}, err
	}
	if len(list) > 1 {
		return drive{}, control.Errorf(control.Argument, "%d drives are served: say which device is meant", len(list))
	}
	return list[0], nil
}

func samePlace(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	first, err := os.Stat(a) // the process may have been told of it by another path
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

func (c *controls) status(*nothing) (any, error) {
	r := statusReport{PID: os.Getpid(), Uptime: time.Since(c.started).Seconds(), Devices: []servedReport{}}
	for _, d := range c.devices {
		device := servedReport{Device: d.place, Kind: d.kind, Client: d.endpoint.Connected(), Link: d.link}
		if d.subsystem != nil {
			device.Subsystem = d.subsystem.name
			device.Namespaces = d.subsystem.reports()
		}
		r.Devices = append(r.Devices, device)
	}
	return r, nil
}

// typed gives an error of a drive its code.
func typed(err error) error {
	code := control.Failed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nvme.ErrNoNamespace):
		code = control.Missing
	case errors.Is(err, block.ErrSpec), errors.Is(err, nvme.ErrConfig):
		code = control.Argument
	case errors.Is(err, nvme.ErrFull), errors.Is(err, nvme.ErrResize), errors.Is(err, block.ErrFixedSize), errors.Is(err, block.ErrInUse):
		code = control.Refused
	}
	return control.Errorf(code, "%v", err)
}
