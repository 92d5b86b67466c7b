// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// admin returns a client of the emulator itself, and the table of a bus URL.
func admin(t *testing.T, busURL string) (*api.Client, *string) {
	t.Helper()
	u, err := url.Parse(busURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(dynamolocal.Region), config.WithBaseEndpoint(u.Query().Get("endpoint")))
	if err != nil {
		t.Fatal(err)
	}
	return api.NewFromConfig(cfg), aws.String(u.Host)
}

// drop deletes a table, which its protection prevents at first.
func drop(t *testing.T, busURL string) {
	t.Helper()
	client, name := admin(t, busURL)
	if _, err := client.DeleteTable(t.Context(), &api.DeleteTableInput{TableName: name}); err == nil {
		t.Log("the emulator does not protect tables from deletion")
		return
	}
	if _, err := client.UpdateTable(t.Context(), &api.UpdateTableInput{TableName: name, DeletionProtectionEnabled: aws.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteTable(t.Context(), &api.DeleteTableInput{TableName: name}); err != nil {
		t.Fatal(err)
	}
}

func TestInitTwice(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	if created, err := dynamodb.Init(t.Context(), url); err != nil || created {
		t.Errorf("made again: %t, %v", created, err)
	}
	client, name := admin(t, url)
	ttl, err := client.DescribeTimeToLive(t.Context(), &api.DescribeTimeToLiveInput{TableName: name})
	if err != nil || aws.ToString(ttl.TimeToLiveDescription.AttributeName) != "expires" {
		t.Errorf("old notices stay: %+v, %v", ttl, err)
	}
	out, err := client.DescribeTable(t.Context(), &api.DescribeTableInput{TableName: name})
	if err != nil || out.Table.BillingModeSummary.BillingMode != types.BillingModePayPerRequest {
		t.Errorf("the table is not paid by request: %v", err)
	}
}

func TestForeignTableIsRefused(t *testing.T) {
	key := func(name string, k types.KeyType) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: &name, KeyType: k}
	}
	of := func(name string, a types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: &name, AttributeType: a}
	}
	for what, in := range map[string]*api.CreateTableInput{
		"other keys": {
			KeySchema:            []types.KeySchemaElement{key("id", types.KeyTypeHash)},
			AttributeDefinitions: []types.AttributeDefinition{of("id", types.ScalarAttributeTypeS)},
		},
		"keys of another type": {
			KeySchema:            []types.KeySchemaElement{key("pk", types.KeyTypeHash), key("sk", types.KeyTypeRange)},
			AttributeDefinitions: []types.AttributeDefinition{of("pk", types.ScalarAttributeTypeS), of("sk", types.ScalarAttributeTypeN)},
		},
		"no index": {
			KeySchema:            []types.KeySchemaElement{key("pk", types.KeyTypeHash), key("sk", types.KeyTypeRange)},
			AttributeDefinitions: []types.AttributeDefinition{of("pk", types.ScalarAttributeTypeS), of("sk", types.ScalarAttributeTypeS)},
		},
	} {
		t.Run(what, func(t *testing.T) {
			url := dynamolocal.Shared(t).URL("foreign-" + strings.ReplaceAll(what, " ", "-"))
			client, name := admin(t, url)
			in.TableName, in.BillingMode = name, types.BillingModePayPerRequest
			if _, err := client.CreateTable(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			_, err := dynamodb.Init(t.Context(), url)
			if err == nil || !strings.Contains(err.Error(), "is not a keyturn bus") {
				t.Errorf("Init: %v", err)
			}
		})
	}
}

// TestRemadeTable deletes the table and makes it anew: whoever knew the log of
// the first one is told, and nobody goes on with the second as if it were that.
func TestRemadeTable(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	l := open(t, url, "")
	id, err := l.Create(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Create(t.Context(), id); err != nil || again != id {
		t.Fatalf("the log is %s, then %s, %v", id, again, err)
	}
	a := write(t, l, "state/a", bus.Position{}, "a1")
	write(t, l, "state/b", bus.Position{}, "b1")
	live := make(chan error, 1)
	following := make(chan struct{})
	go func() {
		var last error
		for u, err := range l.Follow(t.Context(), "state", bus.Position{}) {
			if u.CaughtUp {
				close(following)
			}
			last = err
		}
		live <- last
	}()
	<-following

	drop(t, url)
	if _, err := l.Get(t.Context(), "state/a"); err == nil || errors.Is(err, bus.ErrNotFound) || !strings.Contains(err.Error(), "keyturn bus init") {
		t.Errorf("Get without a table: %v", err)
	}
	if _, err := l.Create(t.Context(), id); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("Create of a log whose table is gone: %v", err)
	}
	if _, err := l.Create(t.Context(), ""); err == nil || errors.Is(err, bus.ErrPosition) {
		t.Errorf("Create without a table: %v", err)
	}
	if err := <-live; err == nil || t.Context().Err() != nil {
		t.Errorf("the follower ended with %v", err)
	}

	if _, err := dynamodb.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(t.Context(), "state/a"); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("Get without a log: %v", err)
	}
	if _, err := l.Append(t.Context(), "state/a", bus.Position{}, []byte("x")); err == nil {
		t.Error("an entry was appended to no log")
	}
	if _, err := l.Create(t.Context(), id); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("Create of the lost log: %v", err)
	}
	fresh := open(t, url, "")
	if _, err := l.Create(t.Context(), id); !errors.Is(err, bus.ErrPosition) {
		t.Errorf("Create of the lost log when there is another: %v", err)
	}
	for _, err := range l.Follow(t.Context(), "state", a) {
		if !errors.Is(err, bus.ErrPosition) {
			t.Errorf("following from a position of the lost log: %v", err)
		}
		break
	}
	var conflict *bus.ConflictError
	if _, err := l.Append(t.Context(), "state/a", a, []byte("a2")); !errors.As(err, &conflict) {
		t.Errorf("replacing an entry of the lost log: %v", err)
	}
	p := write(t, l, "state/a", bus.Position{}, "new")
	if p.Log == id || p.Log == "" {
		t.Errorf("written at %v; the lost log was %s", p, id)
	}
	if got := newest(t, fresh, "state"); len(got) != 1 || got["state/a"] != "new" {
		t.Errorf("the new log has %v", got)
	}
}

// TestClientFromBefore appends by a client that knows the lost log and did not
// ask since: whether it knows more entries than the new one has or fewer, it
// writes to the new one or not at all.
func TestClientFromBefore(t *testing.T) {
	for before := range uint64(4) {
		for after := range uint64(4) {
			url := table(t, dynamolocal.Shared(t))
			old := open(t, url, "")
			var lost bus.Position
			for n := range before {
				lost = write(t, old, fmt.Sprint("state/o", n), bus.Position{}, "old")
			}
			drop(t, url)
			if _, err := dynamodb.Init(t.Context(), url); err != nil {
				t.Fatal(err)
			}
			fresh := open(t, url, "")
			for n := range after {
				write(t, fresh, fmt.Sprint("state/n", n), bus.Position{}, "new")
			}
			if p := write(t, old, "state/a", bus.Position{}, "a"); p.Log == lost.Log || p.Seq != after+1 {
				t.Errorf("%d entries before, %d after: written at %v; the lost log was %s", before, after, p, lost.Log)
			}
		}
	}
}

// TestLogThatWentBack takes the newest entry out of the table: a follower that
// had it is told, live or when it comes back.
func TestLogThatWentBack(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	l := open(t, url, "")
	write(t, l, "group/web/a", bus.Position{}, "a1")
	b := write(t, l, "group/web/b", bus.Position{}, "b1")
	client, name := admin(t, url)
	taken := false
	for _, err := range l.Follow(t.Context(), "group/web", b) {
		if err != nil {
			if !taken || !errors.Is(err, bus.ErrPosition) {
				t.Errorf("following live: %v", err)
			}
			break
		}
		taken = true
		for pk, sk := range map[string]string{"default/group": "@00000000000000000002", "default/group/web": "@00000000000000000002"} {
			if _, err := client.DeleteItem(t.Context(), &api.DeleteItemInput{TableName: name, Key: map[string]types.AttributeValue{
				"pk": &types.AttributeValueMemberS{Value: pk}, "sk": &types.AttributeValueMemberS{Value: sk},
			}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range l.Follow(t.Context(), "group/web", b) {
		if !errors.Is(err, bus.ErrPosition) {
			t.Errorf("following from what is gone: %v", err)
		}
		break
	}
}

// TestRowBeforeItsEntry shows a follower a transaction of which one item is
// applied and another is not yet.
func TestRowBeforeItsEntry(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	l := open(t, url, "")
	a := write(t, l, "state/a", bus.Position{}, "a1")
	client, name := admin(t, url)
	put := func(i map[string]types.AttributeValue) {
		if _, err := client.PutItem(t.Context(), &api.PutItemInput{TableName: name, Item: i}); err != nil {
			t.Error(err)
		}
	}
	s := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	put(map[string]types.AttributeValue{"pk": s("default/state"), "sk": s("@00000000000000000002"), "logid": s(a.Log), "entry": s("state/b")})
	reading := make(chan struct{})
	p := newProxy(t, dynamolocal.Shared(t))
	batches := 0
	p.spoils(func(r request) fault {
		if r.operation == "BatchGetItem" {
			if batches++; batches == 2 {
				close(reading)
			}
		}
		return none
	})
	go func() {
		select {
		case <-reading:
		case <-time.After(time.Minute):
			t.Error("the follower did not read again")
		}
		put(map[string]types.AttributeValue{
			"pk": s("default/state/b"), "sk": s("state/b"), "logid": s(a.Log),
			"seq": &types.AttributeValueMemberN{Value: "2"}, "payload": &types.AttributeValueMemberB{Value: []byte("b1")},
		})
	}()
	if got := newest(t, open(t, p.url(url), ""), "state"); got["state/a"] != "a1" || got["state/b"] != "b1" {
		t.Errorf("the follower has %v", got)
	}
}
