// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus"
)

// When a server has on the disk what it acknowledged, in words; others are
// intervals.
const (
	syncAlways  = "always"  // before
	syncUnknown = "unknown" // it does not say
)

// pingServers is where every server of a cluster answers, on the system's account,
// with how JetStream is set up.
const pingServers = "$SYS.REQ.SERVER.PING.JSZ"

// monitorTimeout bounds how long the answers of servers are waited for, and
// maxVarz how long one is, in bytes.
const (
	monitorTimeout = 2 * time.Second
	maxVarz        = 1 << 20
)

// CheckMonitor returns an error unless text is what Options.Monitor may be: URLs of
// monitoring ports, or the path of a file.
func CheckMonitor(text string) error {
	if !strings.Contains(text, "://") {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return errors.New("it is neither the URL of a monitoring port, http://HOST:PORT, or several with commas, nor a file of credentials")
		}
	}
	return nil
}

// syncs asks servers when they write to the disk, and returns what is known, by
// the server's name. What cannot be asked is not known.
func (l *Log) syncs(ctx context.Context, servers []bus.Server) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	switch m := l.options.Monitor; {
	case strings.Contains(m, "://"):
		return syncsByHTTP(ctx, m)
	case m != "":
		return l.syncsBySystem(ctx, servers)
	case len(servers) == 1 && l.embedded(ctx):
		return map[string]string{servers[0].Name: syncAlways}
	}
	return nil
}

// A jetStreamConfig is what servers say of themselves.
type jetStreamConfig struct {
	SyncInterval time.Duration `json:"sync_interval"`
	SyncAlways   bool          `json:"sync_always"`
}

func (c *jetStreamConfig) String() string {
	switch {
	case c == nil || c.SyncInterval == 0 && !c.SyncAlways:
		return syncUnknown
	case c.SyncAlways:
		return syncAlways
	}
	return c.SyncInterval.String()
}

// syncsByHTTP asks monitoring ports.
func syncsByHTTP(ctx context.Context, urls string) map[string]string {
	all := make(map[string]string)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}
	for part := range strings.SplitSeq(urls, ",") {
		name, config, err := varz(ctx, client, strings.TrimSuffix(strings.TrimSpace(part), "/"))
		if err == nil {
			all[name] = config.String()
		}
	}
	return all
}

func varz(ctx context.Context, client *http.Client, base string) (name string, config *jetStreamConfig, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/varz", nil)
	if err != nil {
		return "", nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config *jetStreamConfig `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxVarz)).Decode(&answer); err != nil {
		return "", nil, fmt.Errorf("%s: %s: %w", base, resp.Status, err)
	}
	return answer.Name, answer.JetStream.Config, nil
}

// syncsBySystem asks all servers at once, by a user of the system's account.
func (l *Log) syncsBySystem(ctx context.Context, servers []bus.Server) map[string]string {
	o := l.options
	o.Creds, o.Logger = o.Monitor, slog.New(slog.DiscardHandler)
	system, err := Connect(o)
	if err != nil {
		return nil
	}
	defer system.Close()
	if err := system.Connected(ctx); err != nil {
		return nil
	}
	inbox := system.nc.NewInbox()
	answers, err := system.nc.SubscribeSync(inbox)
	if err != nil || system.nc.PublishRequest(pingServers, inbox, nil) != nil {
		return nil
	}
	all := make(map[string]string)
	unheard := func(s bus.Server) bool { return all[s.Name] == "" }
	for slices.ContainsFunc(servers, unheard) {
		msg, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			break
		}
		var answer struct {
			Server struct{ Name string } `json:"server"`
			Data   struct {
				Config *jetStreamConfig `json:"config"`
			} `json:"data"`
		}
		if json.Unmarshal(msg.Data, &answer) == nil {
			all[answer.Server.Name] = answer.Data.Config.String()
		}
	}
	return all
}

// askHeader has the embedded server say what it is, where it takes revocations, and
// EmbeddedAlways is what it answers: that is where managers have a secret word in
// common with it.
const (
	askHeader      = "Keyturn-Ask"
	askDurability  = "durability"
	EmbeddedAlways = "embedded, sync always"
)

// AsksDurability reports whether a message at RevokeSubject revokes nobody, and asks
// how the server writes to the disk.
func AsksDurability(m *nats.Msg) bool { return m.Header.Get(askHeader) == askDurability }

// embedded reports whether the server is one of package embedded.
func (l *Log) embedded(ctx context.Context) bool {
	word, err := l.stream.secret(ctx)
	if err != nil {
		return false
	}
	question := nats.NewMsg(RevokeSubject(l.stream.tenant, word))
	question.Header.Set(askHeader, askDurability)
	answer, err := l.nc.RequestMsgWithContext(ctx, question)
	return err == nil && string(answer.Data) == EmbeddedAlways
}
