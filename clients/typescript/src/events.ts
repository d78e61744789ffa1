/** The data of each server-sent event, without comments. Leaving the loop ends the request. */
export async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader(); // Safari's streams can't be iterated
  const decoder = new TextDecoder();
  let pending = "";
  let data: string[] = [];
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (pending + decoder.decode(value, { stream: true })).split("\n");
      pending = lines.pop() ?? "";
      for (const line of lines) {
        const [, field, value] = /^([^:\r]*):? ?(.*?)\r?$/s.exec(line) ?? [];
        if (field === "data") {
          data.push(value ?? "");
        } else if (line === "" || line === "\r") {
          if (data.length) yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => undefined); // it has failed already, which the loop has said
  }
}
