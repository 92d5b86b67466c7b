// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"strings"
	"testing"
)

// who may do what on the bus of tenant red. The columns are
//
//	M  a manager of the tenant          R  the replica web1 of group web
//	B  a manager of tenant blue         S  the replica web2 of group web
//	J  who holds a token for web        A  the replica api1 of group api
//
// and the outcomes: "+" done, "-" not allowed to ask, "x" asked and refused.
const whoMayDoWhat = `
                                                        M B R S A J
read state                                              + - - - - -
read names                                              + - - - - -
read token                                              + - - - - -
read join                                               + - - - - -
read join/joiner                                        + - - - - +
read join/web1                                          + - - - - -
read conf                                               + - - - - -
read conf/managers                                      + - - - - -
read conf/shared                                        + - - - - -
read group                                              + - - - - -
read group/web                                          + - + + - -
read group/api                                          + - - - + -
read member                                             + - - - - -
read member/web                                         + - - - - -
read member/web/web1                                    + - - - - -
read member/web/web2                                    + - - - - -
read member/web/joiner                                  + - - - - +
read challenge                                          + - - - - -
read challenge/web                                      + - - - - -
read challenge/api                                      + - - - - -
read everything                                         + - - - - -
read beacon/web on the board                            + - - - - -
read beacon/api on the board                            + - - - - -
read receipt on the board                               + - - - - -
read receipt/web/web1 on the board                      + - - - - -

get the log's id                                        + - + + + +
get the board's id                                      + - + + + -
get member/web/web1                                     - - + - - -
get conf/managers                                       - - + + + -
get join/joiner                                         - - - - - +
get state/x                                             - - - - - -
get group/web/x                                         - - - - - -
get challenge/web                                       - - + + - -
get challenge/api                                       - - - - + -
get beacon/web                                          - - + + - -
get beacon/api                                          - - - - + -
get receipt/web/web1/0                                  - - - - - -
get anything                                            - - - - - -
ask the leader for any entry                            + - - - - -
ask the leader for any notice                           - - - - - -

append group/web/x                                      + - - - - -
append state/x                                          + - - - - -
append conf/managers                                    + - - - - -
append member/web/web1                                  + - - - - -
append token/joiner                                     + - - - - -
append challenge/web                                    + - - - - -
append group/web/x where all write                      x - - - - -
append group/web/x where it stands                      - - - - - -
append join/joiner                                      + - - - - +
append join/web1                                        + - - - - -
append join/joiner/below                                + - - - - -
put receipt/web/web1/0                                  + - + - - -
put receipt/web/web2/0                                  + - - + - -
put receipt/api/api1/0                                  + - - - + -
put receipt/web/web1/0 where it stands                  - - - - - -
put beacon/web                                          + - - - - -
put beacon/web where all write                          x - - - - -

make a consumer by the name of web1                     + - + - - -
make a consumer of group/api by the name of web1        + - - - - -
make a consumer of all by the name of web1              + - - - - -
make a consumer with two filters                        - - - - - -
make a consumer with no filter                          - - - - - -
make a consumer with no name                            - - - - - -
make a durable consumer                                 - - - - - -
make a consumer of more than its subject says           x - x - - -
remove the consumer of web1                             - - + - - -
remove the consumer of web1 on the board                - - - - - -
remove a consumer of any other name                     - - - - - -
ask for the consumer of web1                            - - - - - -
ask for the names of consumers                          - - - - - -
ask for all consumers                                   - - - - - -
pause the consumer of web1                              - - - - - -
pull from the consumer of web1                          - - - - - -
acknowledge for web1                                    - - - - - -
answer the flow control of web1                         + - + - - -
answer the flow control of web2                         + - - + - -

ask for the log's stream                                + - - - - -
ask for the board's stream                              + - - - - -
ask for the names of streams                            - - - - - -
ask for all streams                                     - - - - - -
make a stream                                           - - - - - -
make the log's stream                                   - - - - - -
mirror the log's stream                                 - - - - - -
change the log's stream                                 - - - - - -
delete the log's stream                                 - - - - - -
delete the board's stream                               - - - - - -
purge the log's stream                                  - - - - - -
purge the board's stream                                - - - - - -
delete a message                                        - - - - - -
copy the log's stream out                               - - - - - -
put a copy of the log's stream in                       - - - - - -
make the leader step down                               - - - - - -
ask for the account                                     - - - - - -
purge the account                                       - - - - - -
ask who is connected                                    - - - - - -
ask the server about itself                             - - - - - -

have users revoked                                      + - - - - -

hear state                                              - - - - - -
hear group/web                                          - - + + - -
hear group/web/x                                        - - + + - -
hear group/api                                          - - - - + -
hear member/web/web1                                    - - + - - -
hear member/web/web2                                    - - - + - -
hear member/web/joiner                                  - - - - - -
hear conf/managers                                      - - + + + -
hear conf/shared                                        - - - - - -
hear challenge/web                                      - - + + - -
hear challenge/api                                      - - - - + -
hear join/joiner                                        - - - - - -
hear beacon/web                                         - - + + - -
hear beacon/api                                         - - - - + -
hear receipt/web/web1/0                                 - - - - - -
hear all that is new in a tenant                        - - - - - -
hear all that is new                                    - - - - - -
say something as if it were new                         - - - - - -

listen to the own inbox                                 + + + + + +
listen to the own inbox in a group                      + + + + + +
listen to the inbox of web1                             - - + - - -
listen to the inbox of web1 in a group                  - - + - - -
listen to all inboxes                                   - - - - - -
listen to everything                                    - - - - - -
listen to everything in a group                         - - - - - -
listen to what is appended                              - - - - - -
listen to the log                                       - - - - - -
listen to the board                                     - - - - - -
listen to the API                                       - - - - - -
listen to advisories                                    - - - - - -
listen to the system                                    - - - - - -
say something in the inbox of web1                      - - - - - -
`

// operations are what the rows do, written out: what stands here is the
// protocol, and not what the code under test makes of it.
func operations(red map[string]string) map[string]func(*wire) string {
	const log, board = "KEYTURN_red", "KEYTURN_red_BOARD"
	named := strings.NewReplacer("web1", web1, "web2", web2, "api1", api1, "joiner", joiner)
	ops := make(map[string]func(*wire) string)
	ask := func(what, subject, body string) {
		ops[what] = func(w *wire) string { outcome, _ := w.request(subject, body); return outcome }
	}
	say := func(what, subject string) {
		ops[what] = func(w *wire) string { return w.publish(subject, "", "") }
	}
	listen := func(what, subject string) {
		ops[what] = func(w *wire) string { return w.subscribe(subject, "") }
		ops[what+" in a group"] = func(w *wire) string { return w.subscribe(subject, "group") }
	}
	for _, scope := range []string{
		"state", "names", "token", "join", "join/joiner", "join/web1", "conf", "conf/managers", "conf/shared",
		"group", "group/web", "group/api", "member", "member/web", "member/web/web1", "member/web/web2", "member/web/joiner",
		"challenge", "challenge/web", "challenge/api",
	} {
		key := named.Replace(scope)
		ops["read "+scope] = func(w *wire) string {
			return w.read(log, key, "keyturn.red."+strings.ReplaceAll(key, "/", ".")+".>")
		}
	}
	ops["read everything"] = func(w *wire) string { return w.read(log, "all", "keyturn.red.>") }
	for _, scope := range []string{"beacon/web", "beacon/api", "receipt", "receipt/web/web1"} {
		key := named.Replace(scope)
		ops["read "+scope+" on the board"] = func(w *wire) string {
			return w.read(board, key, "ktboard.red."+strings.ReplaceAll(key, "/", ".")+".>")
		}
	}

	ask("get the log's id", "$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.id.log", "")
	ask("get the board's id", "$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red.id.board", "")
	for _, key := range []string{"member/web/web1", "conf/managers", "join/joiner", "state/x", "group/web/x", "challenge/web", "challenge/api"} {
		ask("get "+key, "$JS.API.DIRECT.GET.KEYTURN_red.keyturn.red."+strings.ReplaceAll(named.Replace(key), "/", ".")+"._", "")
	}
	for _, key := range []string{"beacon/web", "beacon/api", "receipt/web/web1/0"} {
		ask("get "+key, "$JS.API.DIRECT.GET.KEYTURN_red_BOARD.ktboard.red."+strings.ReplaceAll(named.Replace(key), "/", ".")+"._", "")
	}
	ask("get anything", "$JS.API.DIRECT.GET.KEYTURN_red", `{"last_by_subj":"keyturn.red.state.x._"}`)
	ask("ask the leader for any entry", "$JS.API.STREAM.MSG.GET.KEYTURN_red", `{"last_by_subj":"keyturn.red.state.x._"}`)
	ask("ask the leader for any notice", "$JS.API.STREAM.MSG.GET.KEYTURN_red_BOARD", `{"seq":1}`)

	for _, key := range []string{"group/web/x", "state/x", "conf/managers", "member/web/web1", "token/joiner", "challenge/web"} {
		ask("append "+key, "ktput.red.log."+red["log"]+"."+strings.ReplaceAll(named.Replace(key), "/", ".")+"._", key)
	}
	ask("append group/web/x where all write", "ktput.red.log.open.group.web.x._", "")
	ask("append group/web/x where it stands", "keyturn.red.group.web.x._", "")
	ask("append join/joiner", "ktput.red.log.open.join."+joiner+"._", "request")
	ask("append join/web1", "ktput.red.log.open.join."+web1+"._", "")
	ask("append join/joiner/below", "ktput.red.log.open.join."+joiner+".below._", "")
	ask("put receipt/web/web1/0", "ktput.red.board.open.receipt.web."+web1+".0._", "")
	ask("put receipt/web/web2/0", "ktput.red.board.open.receipt.web."+web2+".0._", "")
	ask("put receipt/api/api1/0", "ktput.red.board.open.receipt.api."+api1+".0._", "")
	ask("put receipt/web/web1/0 where it stands", "ktboard.red.receipt.web."+web1+".0._", "")
	ask("put beacon/web", "ktput.red.board."+red["board"]+".beacon.web._", "")
	ask("put beacon/web where all write", "ktput.red.board.open.beacon.web._", "")

	own := consumerName(red["web1"], log, "group/web")
	ownBoard := consumerName(red["web1"], board, "beacon/web")
	ops["make a consumer by the name of web1"] = func(w *wire) string { return w.consume(log, own, "keyturn.red.group.web.>") }
	ops["make a consumer of group/api by the name of web1"] = func(w *wire) string { return w.consume(log, own, "keyturn.red.group.api.>") }
	ops["make a consumer of all by the name of web1"] = func(w *wire) string { return w.consume(log, own, "keyturn.red.>") }
	ask("make a consumer with two filters", "$JS.API.CONSUMER.CREATE.KEYTURN_red."+own,
		`{"stream_name":"KEYTURN_red","config":{"name":"`+own+`","filter_subjects":["keyturn.red.group.web.>","keyturn.red.state.>"]}}`)
	ask("make a consumer with no filter", "$JS.API.CONSUMER.CREATE.KEYTURN_red."+own, `{"stream_name":"KEYTURN_red","config":{"name":"`+own+`"}}`)
	ask("make a consumer with no name", "$JS.API.CONSUMER.CREATE.KEYTURN_red", `{"stream_name":"KEYTURN_red","config":{"filter_subject":"keyturn.red.group.web.>"}}`)
	ask("make a durable consumer", "$JS.API.CONSUMER.DURABLE.CREATE.KEYTURN_red."+own, `{"stream_name":"KEYTURN_red","config":{"durable_name":"`+own+`"}}`)
	ask("make a consumer of more than its subject says", "$JS.API.CONSUMER.CREATE.KEYTURN_red."+own+".keyturn.red.group.web.>",
		`{"stream_name":"KEYTURN_red","config":{"name":"`+own+`","filter_subject":"keyturn.red.>"}}`)
	ask("remove the consumer of web1", "$JS.API.CONSUMER.DELETE.KEYTURN_red."+own, "")
	ask("remove the consumer of web1 on the board", "$JS.API.CONSUMER.DELETE.KEYTURN_red_BOARD."+ownBoard, "")
	ask("remove a consumer of any other name", "$JS.API.CONSUMER.DELETE.KEYTURN_red.other", "")
	ask("ask for the consumer of web1", "$JS.API.CONSUMER.INFO.KEYTURN_red."+own, "")
	ask("ask for the names of consumers", "$JS.API.CONSUMER.NAMES.KEYTURN_red", "")
	ask("ask for all consumers", "$JS.API.CONSUMER.LIST.KEYTURN_red", "")
	ask("pause the consumer of web1", "$JS.API.CONSUMER.PAUSE.KEYTURN_red."+own, "")
	ask("pull from the consumer of web1", "$JS.API.CONSUMER.MSG.NEXT.KEYTURN_red."+own, "")
	say("acknowledge for web1", "$JS.ACK.KEYTURN_red."+own+".1.1.1.1.1")
	say("answer the flow control of web1", "$JS.FC.KEYTURN_red."+own+".x")
	say("answer the flow control of web2", "$JS.FC.KEYTURN_red."+consumerName(red["web2"], log, "group/web")+".x")

	ask("ask for the log's stream", "$JS.API.STREAM.INFO.KEYTURN_red", "")
	ask("ask for the board's stream", "$JS.API.STREAM.INFO.KEYTURN_red_BOARD", "")
	ask("ask for the names of streams", "$JS.API.STREAM.NAMES", "")
	ask("ask for all streams", "$JS.API.STREAM.LIST", "")
	ask("make a stream", "$JS.API.STREAM.CREATE.mine", `{"name":"mine","subjects":["mine"]}`)
	ask("make the log's stream", "$JS.API.STREAM.CREATE.KEYTURN_red", `{"name":"KEYTURN_red"}`)
	ask("mirror the log's stream", "$JS.API.STREAM.CREATE.mine", `{"name":"mine","mirror":{"name":"KEYTURN_red"}}`)
	ask("change the log's stream", "$JS.API.STREAM.UPDATE.KEYTURN_red", `{"name":"KEYTURN_red"}`)
	ask("delete the log's stream", "$JS.API.STREAM.DELETE.KEYTURN_red", "")
	ask("delete the board's stream", "$JS.API.STREAM.DELETE.KEYTURN_red_BOARD", "")
	ask("purge the log's stream", "$JS.API.STREAM.PURGE.KEYTURN_red", "")
	ask("purge the board's stream", "$JS.API.STREAM.PURGE.KEYTURN_red_BOARD", "")
	ask("delete a message", "$JS.API.STREAM.MSG.DELETE.KEYTURN_red", `{"seq":1}`)
	ask("copy the log's stream out", "$JS.API.STREAM.SNAPSHOT.KEYTURN_red", `{"deliver_subject":"x"}`)
	ask("put a copy of the log's stream in", "$JS.API.STREAM.RESTORE.KEYTURN_red", `{"config":{"name":"KEYTURN_red"}}`)
	ask("make the leader step down", "$JS.API.STREAM.LEADER.STEPDOWN.KEYTURN_red", "")
	ask("ask for the account", "$JS.API.INFO", "")
	ask("purge the account", "$JS.API.ACCOUNT.PURGE.x", "")
	ask("ask who is connected", "$SYS.REQ.ACCOUNT.PING.CONNZ", "")
	ask("ask the server about itself", "$SYS.REQ.SERVER.PING", "")

	say("have users revoked", "ktrevoke.red."+red["log"])

	for _, key := range []string{
		"state", "group/web", "group/web/x", "group/api", "member/web/web1", "member/web/web2", "member/web/joiner",
		"conf/managers", "conf/shared", "challenge/web", "challenge/api", "join/joiner",
	} {
		ops["hear "+key] = func(w *wire) string { return w.subscribe(heard("log", named.Replace(key)), "") }
	}
	for _, key := range []string{"beacon/web", "beacon/api", "receipt/web/web1/0"} {
		ops["hear "+key] = func(w *wire) string { return w.subscribe(heard("board", named.Replace(key)), "") }
	}
	ops["hear all that is new in a tenant"] = func(w *wire) string { return w.subscribe("ktnews.red.>", "") }
	ops["hear all that is new"] = func(w *wire) string { return w.subscribe("ktnews.>", "") }
	say("say something as if it were new", heard("log", "group/web/x"))

	ops["listen to the own inbox"] = func(w *wire) string { return w.subscribe("_INBOX_"+w.user+".x", "") }
	ops["listen to the own inbox in a group"] = func(w *wire) string { return w.subscribe("_INBOX_"+w.user+".x", "group") }
	listen("listen to the inbox of web1", "_INBOX_"+red["web1"]+".>")
	listen("listen to all inboxes", "_INBOX.>")
	listen("listen to everything", ">")
	listen("listen to what is appended", "ktput.>")
	listen("listen to the log", "keyturn.red.>")
	listen("listen to the board", "ktboard.red.>")
	listen("listen to the API", "$JS.API.>")
	listen("listen to advisories", "$JS.EVENT.>")
	listen("listen to the system", "$SYS.>")
	say("say something in the inbox of web1", "_INBOX_"+red["web1"]+".x")
	return ops
}

// heard is the subject at which tenant red's new entries of a key are heard, or of
// a whole group.
func heard(what, key string) string {
	subject := "ktnews.red." + what + "." + strings.ReplaceAll(key, "/", ".")
	if key == "group/web" || key == "group/api" {
		return subject + ".>"
	}
	return subject + "._"
}

// TestWhoMayDoWhat tries every row as everybody.
func TestWhoMayDoWhat(t *testing.T) {
	f := startFleet(t)
	all := f.everybody(t)
	red := map[string]string{"log": f.words["log"], "board": f.words["board"], "web1": f.users["web1"], "web2": f.users["web2"]}
	ops := operations(red)
	all["M"].request("ktput.red.log."+f.words["log"]+".conf.managers._", "set") // so that there is something to get
	all["M"].request("ktput.red.log."+f.words["log"]+".member.web."+web1+"._", "member")
	for _, key := range []string{"state.x", "group.web.x", "challenge.web", "challenge.api"} {
		all["M"].request("ktput.red.log."+f.words["log"]+"."+key+"._", key)
	}
	for _, key := range []string{"beacon.web", "beacon.api"} {
		all["M"].request("ktput.red.board."+f.words["board"]+"."+key+"._", key)
	}
	all["J"].request("ktput.red.log.open.join."+joiner+"._", "request")
	var columns []string
	cells := 0
	for row := range strings.Lines(whoMayDoWhat) {
		words := strings.Fields(row)
		switch {
		case len(words) == 0:
			continue
		case columns == nil:
			columns = words
			continue
		}
		what := strings.Join(words[:len(words)-len(columns)], " ")
		op := ops[what]
		if op == nil {
			t.Fatalf("nothing does %q", what)
		}
		for i, who := range columns {
			want := words[len(words)-len(columns)+i]
			if what == "remove the consumer of web1" && want == done { // there has to be one
				all["R"].read("KEYTURN_red", "group/web", "keyturn.red.group.web.>")
			}
			if got := op(all[who]); got != want {
				t.Errorf("%s: %s is %q, want %q", who, what, got, want)
			}
			cells++
		}
	}
	t.Logf("%d cells", cells)
	if cells < 500 {
		t.Error("the table was not read")
	}
}
