// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A hello is the first flight of a TLS client, for a name that can be changed: what a
// stranger sends who wants as many handshakes begun as he can.
type hello struct {
	record []byte
	name   int // where the name stands in record
}

const helloName = "%012d.unknown.example" // by a number

// newHello has crypto/tls make the flight.
func newHello(protocols ...string) (*hello, error) {
	name := fmt.Sprintf(helloName, 0)
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: name, NextProtos: protocols}).Handshake() // nobody answers
	}()
	header := make([]byte, 5) // RFC 8446 section 5.1: type, version, length
	if _, err := io.ReadFull(server, header); err != nil {
		return nil, err
	}
	record := append(header, make([]byte, int(header[3])<<8|int(header[4]))...)
	if _, err := io.ReadFull(server, record[len(header):]); err != nil {
		return nil, err
	}
	at := bytes.Index(record, []byte(name))
	if at < 0 {
		return nil, errors.New("crypto/tls does not send the name")
	}
	return &hello{record, at}, nil
}

// send begins a handshake for a name that nobody has asked for, and returns when the
// server has answered.
func (h *hello) send(from net.IP, addr string, n int) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Gone at once: a port that waits for stray packets could not be used again.
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	record := bytes.Clone(h.record)
	copy(record[h.name:], fmt.Sprintf(helloName, n))
	if _, err := conn.Write(record); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, record[:1])
	return err
}
