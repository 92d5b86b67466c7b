// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

// A wire speaks the NATS protocol by hand: no client library stands between the
// test and what the server allows.
type wire struct {
	t    *testing.T
	c    net.Conn
	r    *bufio.Reader
	user string // public key; "" without credentials
	n    int
}

// dialWire logs in. The error is what the server refused it with.
func dialWire(t *testing.T, addr, token string, seed []byte) (*wire, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, c: c, r: bufio.NewReader(c)}
	var info struct{ Nonce string }
	line, err := w.r.ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info)
	}
	if err != nil {
		t.Fatal(err)
	}
	hello := map[string]any{"verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1}
	if token != "" {
		key, err := nkeys.FromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := key.Sign([]byte(info.Nonce))
		if err != nil {
			t.Fatal(err)
		}
		if w.user, err = key.PublicKey(); err != nil {
			t.Fatal(err)
		}
		hello["jwt"], hello["sig"] = token, base64.RawURLEncoding.EncodeToString(sig)
	}
	b, err := json.Marshal(hello)
	if err != nil {
		t.Fatal(err)
	}
	w.send("CONNECT %s\r\n", b)
	if refused := w.ping(); refused != "" {
		return nil, fmt.Errorf("%s", refused)
	}
	return w, nil
}

func (w *wire) send(format string, a ...any) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.c, format, a...); err != nil {
		w.t.Fatal(err)
	}
}

// ping waits until the server has worked off what was sent, and returns its
// complaint, "" if it has none.
func (w *wire) ping() (complaint string) {
	w.t.Helper()
	w.send("PING\r\n")
	for {
		line, _ := w.next()
		switch {
		case line == "PONG" || line == "":
			return complaint
		case strings.HasPrefix(line, "-ERR"):
			complaint = line
		}
	}
}

// next reads a line, and the payload where it announces one; "" at the end of
// the connection.
func (w *wire) next() (line string, payload []byte) {
	w.t.Helper()
	line, err := w.r.ReadString('\n')
	if err != nil {
		return "", nil
	}
	line = strings.TrimSpace(line)
	words := strings.Fields(line)
	if words[0] != "MSG" && words[0] != "HMSG" {
		return line, nil
	}
	n, err := strconv.Atoi(words[len(words)-1])
	if err != nil {
		w.t.Fatal(err)
	}
	payload = make([]byte, n+2)
	if _, err := io.ReadFull(w.r, payload); err != nil {
		w.t.Fatal(err)
	}
	return line, payload[:n]
}

// Outcomes of what somebody tried.
const (
	done    = "+" // the server did it
	denied  = "-" // the server does not let this user ask
	refused = "x" // the user may ask, and the server does not do it
)

// request sends a request, to be answered to the user's own inbox, and waits for
// the answer.
func (w *wire) request(subject, body string) (outcome string, answer []byte) {
	w.t.Helper()
	w.n++
	inbox := fmt.Sprintf("_INBOX_%s.%d", w.user, w.n)
	w.send("SUB %s %d\r\nUNSUB %d 1\r\nPUB %s %s %d\r\n%s\r\n", inbox, w.n, w.n, subject, inbox, len(body), body)
	for {
		line, payload := w.next()
		switch {
		case line == "":
			w.t.Fatalf("%s: the server hung up", subject)
		case strings.HasPrefix(line, "-ERR 'Permissions Violation"):
			return denied, nil
		case strings.HasPrefix(line, "-ERR"):
			w.t.Fatalf("%s: %s", subject, line)
		case strings.HasPrefix(line, "HMSG") && strings.Contains(string(payload), "NATS/1.0 "), strings.Contains(string(payload), `"error":{`):
			return refused, payload
		case strings.Contains(line, inbox):
			return done, payload
		}
	}
}

// publish sends a message that nobody answers.
func (w *wire) publish(subject, reply, body string) (outcome string) {
	w.t.Helper()
	w.send("PUB %s %s %d\r\n%s\r\n", subject, reply, len(body), body)
	return w.outcome()
}

// publishHeaders is publish of a message with headers.
func (w *wire) publishHeaders(subject, reply, headers, body string) (outcome string) {
	w.t.Helper()
	w.send("HPUB %s %s %d %d\r\n%s%s\r\n", subject, reply, len(headers), len(headers)+len(body), headers, body)
	return w.outcome()
}

// subscribe subscribes, in a queue group if one is named.
func (w *wire) subscribe(subject, queue string) (outcome string) {
	w.t.Helper()
	w.n++
	w.send("SUB %s %s %d\r\n", subject, queue, w.n)
	outcome = w.outcome()
	w.send("UNSUB %d\r\n", w.n)
	return outcome
}

func (w *wire) outcome() string {
	w.t.Helper()
	switch complaint := w.ping(); {
	case complaint == "":
		return done
	case strings.HasPrefix(complaint, "-ERR 'Permissions Violation"):
		return denied
	default:
		w.t.Fatal(complaint)
		return ""
	}
}

// consumerName is the name that a user's consumer of a scope has to have.
func consumerName(user, stream, scope string) string {
	h := sha256.Sum256([]byte(stream + "\x00" + scope))
	return strings.ToLower(user) + "-" + hex.EncodeToString(h[:4])
}

// consume asks for a consumer that delivers to the user's own inbox.
func (w *wire) consume(stream, name, filter string) string {
	w.t.Helper()
	outcome, _ := w.request("$JS.API.CONSUMER.CREATE."+stream+"."+name+"."+filter, w.consumer(stream, name, filter))
	return outcome
}

func (w *wire) consumer(stream, name, filter string) string {
	return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"filter_subject":%q,"deliver_subject":"_INBOX_%s.deliver","ack_policy":"none","deliver_policy":"all","inactive_threshold":5000000000}}`,
		stream, name, filter, w.user)
}

// read asks for the consumer of a scope by the user's own name for it.
func (w *wire) read(stream, scope, filter string) string {
	w.t.Helper()
	return w.consume(stream, consumerName(w.user, stream, scope), filter)
}
