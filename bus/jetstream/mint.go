// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/event"
)

// A Mint makes the credentials of a NATS account's users: JWTs that say what
// each may do, and nothing by exception. They are of no use without the secret
// of the user that they name. It is safe for concurrent use.
type Mint struct {
	signing nkeys.KeyPair
	account string
}

// MintSecret returns what NewMint makes a Mint of: the seed of one of the
// account's signing keys, and the account's public key. It is a secret.
func MintSecret(signing nkeys.KeyPair, account string) ([]byte, error) {
	seed, err := signing.Seed()
	if err != nil {
		return nil, fmt.Errorf("bus: the signing key of the account: %w", err)
	}
	return fmt.Appendf(nil, "%s %s", seed, account), nil
}

// NewMint returns a Mint of what MintSecret returned.
func NewMint(secret []byte) (*Mint, error) {
	seed, account, ok := bytes.Cut(secret, []byte(" "))
	if !ok || !nkeys.IsValidPublicAccountKey(string(account)) {
		return nil, errors.New("bus: the secret that makes NATS credentials is cut or not one")
	}
	signing, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("bus: the secret that makes NATS credentials: %w", err)
	}
	return &Mint{signing, string(account)}, nil
}

// Join lets a user ask to become the member id of a group, and see what becomes
// of it, until expires.
func (m *Mint) Join(tenant, group, id, user string, expires time.Time) (grant string, err error) {
	r, err := newRights(tenant, group, id, user)
	if err != nil {
		return "", err
	}
	request, member := event.JoinKey(id), event.MemberKey(group, id)
	r.allow(r.log.target(openWord, request))
	r.get(r.log, request)
	r.get(r.log, member)
	r.follow(r.log, request)
	r.follow(r.log, member)
	r.claims.Expires = expires.Unix()
	return m.sign(r, "join-"+group)
}

// Replica lets a user follow what a replica of a group needs, and report.
func (m *Mint) Replica(tenant, group, id, user string) (grant string, err error) {
	r, err := newRights(tenant, group, id, user)
	if err != nil {
		return "", err
	}
	r.follow(r.log, event.GroupScope(group))
	r.hear(r.log, event.GroupScope(group))
	for _, key := range []string{event.MemberKey(group, id), event.ManagersKey, event.ChallengesKey(group)} {
		r.get(r.log, key)
		r.hear(r.log, key)
	}
	beacon := event.BeaconKey(group)
	r.id(r.board)
	r.get(r.board, beacon)
	r.hear(r.board, beacon)
	r.allow(r.board.written() + openWord + "." + dots(strings.TrimSuffix(event.ReceiptKey(group, id, 0), "0")) + ">")
	return m.sign(r, "replica-"+group)
}

// Manager lets a user read and write all of a tenant's log and board. It can
// neither make streams nor take anything away.
func (m *Mint) Manager(tenant, name, user string) (grant string, err error) {
	if err := event.CheckHost(name); err != nil {
		return "", err
	}
	r, err := newUser(tenant, user)
	if err != nil {
		return "", err
	}
	for _, n := range []names{r.log, r.board} {
		r.allow(
			n.written()+"*.>",
			"$JS.API.STREAM.INFO."+n.stream(),
			"$JS.API.CONSUMER.CREATE."+n.stream()+".*."+n.kept()+">",
			"$JS.FC."+n.stream()+".>",
		)
		r.id(n)
	}
	r.allow("$JS.API.STREAM.MSG.GET."+r.log.stream(), RevokeSubject(tenant, "*"))
	return m.sign(r, "manager-"+name)
}

func (m *Mint) sign(r *rights, name string) (string, error) {
	r.claims.Name = name
	r.claims.IssuerAccount = m.account
	token, err := r.claims.Encode(m.signing)
	if err != nil {
		return "", fmt.Errorf("bus: signing the credentials of %s: %w", name, err)
	}
	return token, nil
}

// rights are what a user may do: what was allowed, and nothing else.
type rights struct {
	claims     *jwt.UserClaims
	log, board names
	prefix     string // of the names of his consumers
}

func newUser(tenant, user string) (*rights, error) {
	if err := event.CheckName(tenant); err != nil {
		return nil, fmt.Errorf("bus: the tenant: %w", err)
	}
	if !nkeys.IsValidPublicUserKey(user) {
		return nil, fmt.Errorf("bus: %q is not the public key of a NATS user", user)
	}
	r := &rights{claims: jwt.NewUserClaims(user), log: names{tenant: tenant}, board: names{tenant: tenant, board: true}}
	r.claims.Sub.Allow.Add(inboxPrefix(user) + ".>")
	return r, nil
}

// newRights are those of a user who may do no more than he is told.
func newRights(tenant, group, id, user string) (*rights, error) {
	if err := event.CheckName(group); err != nil {
		return nil, fmt.Errorf("bus: the group: %w", err)
	}
	if err := event.CheckID(id); err != nil {
		return nil, fmt.Errorf("bus: the member: %w", err)
	}
	r, err := newUser(tenant, user)
	if err != nil {
		return nil, err
	}
	r.prefix = strings.ToLower(user) // as tags are
	r.claims.Tags.Add(consumerTag + r.prefix)
	return r, nil
}

func (r *rights) allow(subjects ...string) { r.claims.Pub.Allow.Add(subjects...) }

// follow allows the scope's consumers, under their pinned names and no other.
func (r *rights) follow(n names, scope string) {
	name := pinnedName(r.prefix, n.stream(), scope)
	r.id(n)
	r.allow("$JS.FC." + n.stream() + "." + name + ".>")
	consumers := []string{name}
	if hasMany(scope) {
		consumers = append(consumers, name+lookSuffix)
	}
	for _, name := range consumers {
		r.allow(
			"$JS.API.CONSUMER.CREATE."+n.stream()+"."+name+"."+n.filter(scope),
			"$JS.API.CONSUMER.DELETE."+n.stream()+"."+name,
		)
	}
}

// hear allows to listen to what is new in the scope.
func (r *rights) hear(n names, scope string) { r.claims.Sub.Allow.Add(n.heard(scope)) }

// get allows to read one key.
func (r *rights) get(n names, key string) {
	r.allow("$JS.API.DIRECT.GET." + n.stream() + "." + n.subject(key))
}

// id allows to know which stream it is.
func (r *rights) id(n names) {
	r.allow("$JS.API.DIRECT.GET." + r.log.stream() + "." + n.idSubject())
}
