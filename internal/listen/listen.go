// SPDX-License-Identifier: Apache-2.0

// Package listen opens ports in the ways by which one process hands them to the next
// without a refused connection: sockets that systemd holds, and, on Linux, ports that two
// processes share while one takes over.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// AdminName is what a socket unit calls the socket that is not for clients
// (FileDescriptorName= of systemd.socket(5)).
const AdminName = "admin"

// Inherited returns the sockets that systemd has opened for this process, as
// sd_listen_fds(3) says, and the one called AdminName apart; none are no error. The
// variables that tell of them are gone afterwards.
func Inherited() (public []net.Listener, admin net.Listener, err error) {
	defer func() {
		if err != nil {
			Close(append(public, admin)...)
		}
	}()
	for _, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		err = errors.Join(err, f.Close())
		switch {
		case err != nil:
			return public, admin, fmt.Errorf("the socket %s of systemd cannot be listened on: it has to be a stream socket with Accept=no: %w", f.Name(), err)
		case f.Name() != AdminName:
			public = append(public, l)
		case admin != nil:
			Close(l)
			return public, admin, fmt.Errorf("systemd has two sockets called %s", AdminName)
		default:
			admin = l
		}
	}
	return public, admin, nil
}

// Port listens on an address that nobody else listens on.
func Port(ctx context.Context, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	return l, explain(address, err)
}

// Shared listens on an address that another process of the same user may listen on in
// the same way, and takes over from it: new connections come to this process alone. The
// other one has to go on accepting for a moment, for those that were being made.
func Shared(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // its sockets cannot be steered
	config.Control = func(_, _ string, c syscall.RawConn) error { return control(c, share) }
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, explain(address, err)
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = control(raw, steer)
	}
	if err != nil {
		Close(l)
		return nil, fmt.Errorf("taking %s over: %w", address, err)
	}
	return l, nil
}

func control(c syscall.RawConn, set func(fd int) error) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = set(int(fd)) })
	return errors.Join(err, failed)
}

func explain(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program: stop that one, or choose another address", address)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s is a port that only root may open: let systemd open it, or grant CAP_NET_BIND_SERVICE: %w", address, err)
	case err != nil:
		return fmt.Errorf("listening on %s: %w", address, err)
	}
	return nil
}

// Close closes listeners, of which some may be nil.
func Close(all ...net.Listener) {
	for _, l := range all {
		if l != nil {
			_ = l.Close() // nothing is to be done about it
		}
	}
}
