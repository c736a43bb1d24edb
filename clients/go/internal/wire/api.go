package wire

import "strconv"

// API numbers the kinds of requests (docs/PROTOCOL.md section 4).
type API uint16

// What a client asks; the other numbers belong to peers and controllers.
const (
	APIHello          API = 1
	APIProduce        API = 10
	APIFetch          API = 11
	APIListOffsets    API = 12
	APIDeleteRecords  API = 13
	APIGroupHeartbeat API = 14
	APIGroupCommit    API = 15
	APIGroupOffsets   API = 16
	APIGroupDescribe  API = 17
	APIGroupList      API = 18
	APIGroupDelete    API = 19
	APIResolve        API = 20
	APICreateTopic    API = 21
	APIDeleteTopic    API = 22
	APIAlterTopic     API = 23
)

var apiNames = map[API]string{
	APIHello: "hello", APIProduce: "produce", APIFetch: "fetch", APIListOffsets: "list-offsets",
	APIDeleteRecords: "delete-records", APIGroupHeartbeat: "group-heartbeat", APIGroupCommit: "group-commit",
	APIGroupOffsets: "group-offsets", APIGroupDescribe: "group-describe", APIGroupList: "group-list",
	APIGroupDelete: "group-delete", APIResolve: "resolve", APICreateTopic: "create-topic",
	APIDeleteTopic: "delete-topic", APIAlterTopic: "alter-topic",
}

func (api API) String() string {
	if name, ok := apiNames[api]; ok {
		return name
	}
	return "api " + strconv.Itoa(int(api))
}
