// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// MaxChallenges is how many challenges a group answers at once.
const MaxChallenges = 600

// Types of challenges that replicas answer.
const (
	ChallengeHTTP01    = "http-01"     // RFC 8555 section 8.3
	ChallengeTLSALPN01 = "tls-alpn-01" // RFC 8737
)

// maxToken bounds a challenge's token, and maxAuthorization its key
// authorization, in bytes: base64url of 128 bits or more, and that with a dot
// and a SHA-256.
const (
	maxToken         = 128
	maxAuthorization = 256
)

// Challenges are what the replicas of a group answer when an ACME CA looks
// whether the group controls a name. They are no secrets: whoever asks gets
// them.
type Challenges struct {
	Group string
	List  []Challenge
}

// A Challenge is one of an order.
type Challenge struct {
	// Type is ChallengeHTTP01 or ChallengeTLSALPN01.
	Type string
	// Name is a DNS name, or an IP address in the form of netip.Addr.
	Name string
	// Token and Authorization, the key authorization, are those of RFC 8555
	// section 8.1.
	Token, Authorization string
	// Expires is when nobody answers it any more, whatever became of the order.
	Expires time.Time
}

const (
	challengesGroup tag = iota + 1
	challengesOne
)

const (
	challengeType tag = iota + 1
	challengeName
	challengeToken
	challengeAuthorization
	challengeExpires
)

func (c *Challenges) kind() Type  { return TypeChallenges }
func (c *Challenges) key() string { return ChallengesKey(c.Group) }

func (c *Challenges) fields(f *codec) {
	f.string(challengesGroup, &c.Group, maxWord)
	messages(f, challengesOne, &c.List, MaxChallenges)
}

func (c *Challenges) check() error {
	if len(c.List) > MaxChallenges {
		return fmt.Errorf("%d challenges: a group answers at most %d at once", len(c.List), MaxChallenges)
	}
	for i := range c.List {
		if err := c.List[i].check(); err != nil {
			return err
		}
	}
	return CheckName(c.Group)
}

func (c *Challenge) fields(f *codec) {
	f.string(challengeType, &c.Type, maxWord)
	f.string(challengeName, &c.Name, maxName)
	f.string(challengeToken, &c.Token, maxToken)
	f.string(challengeAuthorization, &c.Authorization, maxAuthorization)
	f.time(challengeExpires, &c.Expires)
}

// tokenForm is a token's, which becomes part of paths.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{22,}$`)

// CheckToken returns an error unless s can be a challenge's token: at least 128
// bits in base64url (RFC 8555 section 8.1).
func CheckToken(s string) error {
	if len(s) > maxToken || !tokenForm.MatchString(s) {
		return errors.New("a challenge's token is not 22 to 128 of A-Z a-z 0-9 _ -, as RFC 8555 has it")
	}
	return nil
}

func (c *Challenge) check() error {
	switch {
	case c.Type != ChallengeHTTP01 && c.Type != ChallengeTLSALPN01:
		return fmt.Errorf("a challenge of type %.40q: replicas answer %s and %s", c.Type, ChallengeHTTP01, ChallengeTLSALPN01)
	case c.Name == "" || len(c.Name) > maxName:
		return errors.New("a challenge for no name")
	case len(c.Authorization) <= len(c.Token) || len(c.Authorization) > maxAuthorization || c.Authorization[:len(c.Token)+1] != c.Token+".":
		return errors.New("a challenge whose key authorization is not its token, a dot and a thumbprint")
	}
	return CheckToken(c.Token)
}
