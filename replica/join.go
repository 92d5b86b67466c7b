// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// Errors of Join that callers branch on.
var (
	// ErrJoined means that the directory is a joined one already.
	ErrJoined = errors.New("replica: joined already")
	// ErrTokenUsed means that another host joined by the token.
	ErrTokenUsed = errors.New("replica: the join token was used by another host: if that is none of yours, revoke it as a manager; make a new one")
	// ErrTokenExpired means that the token's time is over.
	ErrTokenExpired = errors.New("replica: the join token has expired: make a new one, and look at the host's clock if it was new")
)

// A JoinConfig says by which token a host joins, and where what it gets is
// kept. Token and Dir must be set.
type JoinConfig struct {
	Token *event.Token
	// Dir becomes the joined directory. It is made, mode 0700, if it is missing,
	// and otherwise must be empty or what an earlier Join left half done.
	Dir string
	// Name tells people which host it is; "" is the host's own name.
	Name string
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Progress, if not nil, is told in a sentence what is being waited for, each
	// time that changes. It is called by Join's goroutine.
	Progress func(string)
}

// Join makes a directory a joined one: [Open] then needs nothing but its name.
// It asks over the bus and waits until a manager has answered and a holder of
// the group's key has granted that, or ctx ends. The package of the bus's engine
// has to be imported.
//
// Join may be killed at any moment: the same call, with the same token,
// completes what was begun. The errors to branch on are ErrJoined, ErrTokenUsed
// and ErrTokenExpired.
func Join(ctx context.Context, c JoinConfig) (*Membership, error) {
	j, err := newJoin(c)
	if err != nil {
		return nil, err
	}
	m, err := j.granted(ctx)
	if err != nil {
		return nil, errors.Join(err, j.lock.Release())
	}
	ms, err := j.finish(m)
	return ms, errors.Join(err, j.lock.Release())
}

// A join is one under way.
type join struct {
	token    *event.Token
	managers []*seal.VerifyKey
	dir      joinDir
	name     string
	logger   *slog.Logger
	progress func(string)
	said     string // the last that progress was told

	host   *seal.Identity
	lock   *durable.Lock
	driver bus.Driver
	secret []byte // of the host's own bus user

	request []byte        // the signed event
	member  *event.Member // nil until a manager took the request
}

// newJoin checks what it is given and prepares the directory, up to the signed
// request.
func newJoin(c JoinConfig) (_ *join, err error) {
	if c.Token == nil || c.Dir == "" {
		return nil, errors.New("replica: joining: a token and a directory are needed")
	}
	j := &join{token: c.Token, dir: joinDir(c.Dir), name: cmp.Or(c.Name, hostName()), logger: cmp.Or(c.Logger, slog.Default()), progress: c.Progress}
	if err := event.CheckHost(j.name); err != nil {
		return nil, fmt.Errorf("replica: joining as %q: %w", j.name, err)
	}
	if j.managers, err = c.Token.Trusted(); err != nil {
		return nil, fmt.Errorf("replica: joining: %w", err)
	}
	if j.driver, err = bus.DriverOf(j.url()); err != nil {
		return nil, fmt.Errorf("replica: joining: %w", err)
	}
	if err := j.dir.check(); err != nil {
		return nil, err
	}
	if err := j.prepare(); err != nil {
		if j.lock != nil {
			_ = j.lock.Release() // the first error is the one to report
		}
		return nil, err
	}
	return j, nil
}

// url is what goes into bus.url: engines with several addresses take a list.
func (j *join) url() string { return strings.Join(j.token.URLs, ",") }

// where is url without what only the bus needs to know: errors and logs show it.
func (j *join) where() string {
	var out []string
	for _, s := range j.token.URLs {
		u, err := url.Parse(s)
		if err != nil {
			out = append(out, "[malformed URL]")
			continue
		}
		out = append(out, u.Scheme+"://"+u.Host)
	}
	return strings.Join(out, ",")
}

// prepare makes the host's own keys, or reads those of an earlier attempt, and
// writes everything that is known before anybody is asked.
func (j *join) prepare() (err error) {
	if j.host, j.lock, err = j.dir.host(); err != nil {
		return err
	}
	if j.secret, err = busSecret(j.host); err != nil {
		return err
	}
	if j.member, err = j.dir.readMember(j); err != nil {
		return err
	}
	if j.member == nil && !time.Now().Before(j.token.Expires) {
		return j.expired()
	}
	if err := j.dir.writeBus(j.url(), j.token.Roots); err != nil {
		return err
	}
	if j.member == nil {
		user, err := j.token.User()
		if err != nil {
			return fmt.Errorf("replica: joining: %w", err)
		}
		if err := j.dir.writeCreds(j.driver, j.token.Grant, user); err != nil {
			return err
		}
	} else if err := j.dir.writeCreds(j.driver, j.member.Grant, j.secret); err != nil {
		return err
	}
	return j.makeRequest()
}

// busSecret is what logs the host in to the bus. It follows from the host's own
// sealing key, so that there is one secret to keep.
func busSecret(host *seal.Identity) ([]byte, error) {
	return host.Sealing[0].Derive("bus user", nil)
}

// makeRequest signs the request, or reads the one of an earlier attempt: the
// bus takes equal bytes once.
func (j *join) makeRequest() error {
	path := j.dir.file(requestFile)
	if data, err := durable.ReadPrivate(path, event.MaxSize); err == nil && j.ownRequest(data) {
		j.request = data
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replica: joining: reading the request: %w", err)
	}
	user, err := j.driver.User(j.secret)
	if err != nil {
		return fmt.Errorf("replica: joining: the host's user on the bus: %w", err)
	}
	key, err := j.token.SigningKey()
	if err != nil {
		return fmt.Errorf("replica: joining: %w", err)
	}
	j.request, err = event.Sign(key, j.token.Tenant, time.Now(), &event.JoinRequest{
		ID: j.token.ID, Group: j.token.Group, Name: j.name, User: user,
		SealKey: j.host.Sealing[0].Public().Bytes(), SignKey: j.host.Signing.Public().Bytes(),
	})
	if err != nil {
		return fmt.Errorf("replica: joining: %w", err)
	}
	if err := durable.WriteFile(path, j.request, durable.PrivateFile); err != nil {
		return fmt.Errorf("replica: joining: writing the request: %w", err)
	}
	return nil
}

// ownRequest reports whether data are a request by this token.
func (j *join) ownRequest(data []byte) bool {
	key, err := j.token.SigningKey()
	if err != nil {
		return false
	}
	_, err = event.Open([]*seal.VerifyKey{key.Public()}, j.token.Tenant, event.JoinKey(j.token.ID), data)
	return err == nil
}

// openMember verifies a member's entry: a manager that the token pins signed it,
// and it is this host's.
func (j *join) openMember(data []byte) (*event.Member, error) {
	e, err := event.Open(j.managers, j.token.Tenant, event.MemberKey(j.token.Group, j.token.ID), data)
	if err != nil {
		return nil, err
	}
	m, ok := e.Body.(*event.Member)
	switch {
	case !ok:
		return nil, event.ErrUnsupported
	case !bytes.Equal(m.SignKey, j.host.Signing.Public().Bytes()):
		return nil, errPermanent{ErrTokenUsed}
	case !m.Revoked.IsZero():
		return nil, errPermanent{fmt.Errorf("replica: joining: member %s was revoked at %s: make a new token", m.ID, m.Revoked.Format(time.RFC3339))}
	}
	return m, nil
}

// finish writes what was granted; the membership last.
func (j *join) finish(m *event.Member) (*Membership, error) {
	keys, err := m.Open(j.token.Tenant, j.host.Sealing)
	if err != nil {
		return nil, fmt.Errorf("replica: joining: what was granted does not open: %w", err)
	}
	if err := j.dir.writeKeys(m.Group, keys); err != nil {
		return nil, err
	}
	if err := j.dir.writeCreds(j.driver, m.Grant, j.secret); err != nil {
		return nil, err
	}
	if err := seal.WriteVerifyKeyFile(j.dir.file(ManagersFile), j.managers...); err != nil {
		return nil, fmt.Errorf("replica: joining: %w", err)
	}
	ms := &Membership{ID: m.ID, Name: m.Name, Tenant: j.token.Tenant, Group: m.Group, Serial: j.token.Serial}
	if err := ms.write(string(j.dir)); err != nil {
		return nil, fmt.Errorf("replica: joining: writing the membership: %w", err)
	}
	crash.Point(crash.Joined)
	j.dir.tidy()
	j.logger.Info("joined", "member", ms.ID, "name", ms.Name, "group", ms.Group)
	return ms, nil
}

func (j *join) expired() error {
	return fmt.Errorf("%w (it ended at %s)", ErrTokenExpired, j.token.Expires.Format(time.RFC3339))
}

// tell passes on what is being waited for.
func (j *join) tell(format string, v ...any) {
	if s := fmt.Sprintf(format, v...); s != j.said {
		j.said = s
		if j.progress != nil {
			j.progress(s)
		}
	}
}

// hostName is the host's own name, made one that CheckHost takes.
func hostName() string {
	s, err := os.Hostname()
	if err != nil {
		s = ""
	}
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, s)
	return cmp.Or(s[:min(len(s), 63)], "host")
}
