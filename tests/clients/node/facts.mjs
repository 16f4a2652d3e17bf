// What the Python side knows: where the servers are, and every word the scripted one will say.
export const { scripted, reasoner, thought, question, heard, degrees } = JSON.parse(
  process.env.INGLE_FACTS,
);

export const usual = "Say é 😀 twice";

export const getWeather = ({ city }) => `${degrees[city]} degrees in ${city}`;

export const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
