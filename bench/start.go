// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// startVariable, in the environment, names a directory with a snapshot and keys: this
// program then only starts a replica on it, and says what that took.
const startVariable = "KEYTURN_BENCH_START"

// A startup is what such a start took.
type startup struct {
	Read  time.Duration // of reading the snapshot's files
	Start time.Duration // until the first handshake was done
	Peak  uint64        // the most memory, in bytes; 0 where the system does not tell
}

// startAgain measures a replica that starts with what it has, in a process of its own.
func (b *bench) startAgain(f *fleet, c replica.Config) ([]row, error) {
	if err := errors.Join(
		seal.WriteVerifyKeyFile(filepath.Join(f.dir, replica.ManagersFile), c.Managers...),
		os.MkdirAll(filepath.Dir(replica.KeyFile(f.dir, c.Group)), 0o700),
		seal.WritePrivateKeyFile(replica.KeyFile(f.dir, c.Group), c.Keys...),
	); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var s startup
	for range 2 { // the first has the files read into memory
		child := exec.Command(program)
		child.Env = append(os.Environ(), startVariable+"="+f.dir)
		child.Stderr = b.stderr
		out, err := child.Output()
		if err == nil {
			err = json.Unmarshal(out, &s)
		}
		if err != nil {
			return nil, fmt.Errorf("starting a replica on its snapshot: %w", err)
		}
	}
	work := fmt.Sprintf("start with %s certificates", thousands(b.caughtUp))
	start := row{Work: work, Contender: nameStart, Figure: exactly(float64(s.Start)), Unit: "ns"}
	times := float64(s.Start) / float64(s.Read)
	start.Ratio, start.Than = new(exactly(times)), nameRead
	start.aim(fmt.Sprintf("≤ %.0f × %s", timesRead, nameRead), times <= timesRead)
	memory := row{Work: work, Contender: nameStart, Figure: exactly(float64(s.Peak) / (1 << 20)), Unit: "MiB at most"}
	memory.aim(fmt.Sprintf("≤ %d MiB", mostMemory>>20), s.Peak <= mostMemory)
	return []row{{Work: work, Contender: nameRead, Figure: exactly(float64(s.Read)), Unit: "ns"}, start, memory}, nil
}

// asChild does what startVariable or serveVariable asks for, if one does, and ends the
// process.
func asChild() {
	var err error
	if dir := os.Getenv(startVariable); dir != "" {
		var s startup
		if s, err = startOn(dir); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(s)
		}
	} else if dir := os.Getenv(serveVariable); dir != "" {
		err = serveOn(dir, os.Getenv(serveAtVariable))
	} else {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func startOn(dir string) (s startup, err error) {
	snapshot := filepath.Join(dir, "snapshot")
	start := time.Now()
	if err := readAll(snapshot); err != nil {
		return s, err
	}
	s.Read = time.Since(start)
	start = time.Now()
	managers, err := seal.ReadVerifyKeyFile(filepath.Join(dir, replica.ManagersFile))
	if err != nil {
		return s, err
	}
	keys, err := seal.ReadPrivateKeyFile(replica.KeyFile(dir, "web"))
	if err != nil {
		return s, err
	}
	r, err := replica.Open(context.Background(), replica.Config{Managers: managers, Keys: keys, Group: "web", Snapshot: snapshot, Logger: quiet()})
	if err != nil {
		return s, err
	}
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: host(0), InsecureSkipVerify: true}).Handshake() // the server's is the one to report
	}()
	if err := tls.Server(server, &tls.Config{GetCertificate: r.Store().GetCertificate}).Handshake(); err != nil {
		return s, err
	}
	s.Start, s.Peak = time.Since(start), peakMemory()
	return s, r.Close()
}

// readAll reads the files of a directory, one after the other, into the same memory.
func readAll(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ktj"))
	if err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		for err == nil {
			_, err = f.Read(buffer)
		}
		_ = f.Close() // it was only read
	}
	return nil
}

// peakMemory is the most memory that this process had, as Linux tells it.
func peakMemory() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	kib, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
