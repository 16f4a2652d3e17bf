"""Words for the spelling tasks: common English ones, and made-up ones that can be pronounced.

Two of five words drawn are made up, so that a model learns to spell and not a list. Words of
the question templates ("number", "count") are drawn more often than others: the tokenizer of the
shipped model holds them as one token each, and their spelling can only be learned by heart.
"""

from __future__ import annotations

import random
from functools import cache

KNOWN_SHARE, MADE_UP_SHARE = 0.2, 0.4

_COMMON = """
ability able about above accept account across action active actor actual address advance advice
afraid after again against airplane airport album alive allow almost alone along already also always
amazing amount anchor ancient angel anger angle animal ankle answer anybody apart apple april
architect area argue arm army around arrive arrow article artist aside asleep atom attack august
author autumn avenue average avoid awake award away baby back backward bacon badge balance ball
balloon banana band bank barn base basic basket bath battery beach bean bear beautiful beauty became
because become bed beef been before began begin behind believe bell belong below bench berry best
better between beyond bicycle big bike bird birthday biscuit black blame blanket blind block blood
blossom blue board boat body bone book boot border borrow boss both bottle bottom bowl box boy brain
branch brave bread break breakfast breath breathe brick bridge brief bright bring broken brother
brown brush bubble bucket build building burn bus bush business busy butter butterfly button cabin
cake calculate calendar call calm camel camera camp canal candle candy cannot capital captain car
carbon card careful carpet carrot carry castle cat catch cause ceiling cell center century certain
chain chair challenge champion chance change chapter charge cheap check cheese cherry chest chicken
chief child children chocolate choice choose circle citizen city class classroom clean clear clever
climb clock close cloth clothes cloud coach coast coat coffee coin cold collect college color
comfort common community company compare complete computer concert convert cook cookie cool copper
copy corn corner correct cost cotton couch could count country couple courage course cousin cover
cow crash crazy cream create creature crime crop cross crowd crown cruel cry culture cup curious
curtain curve cycle daily damage dance danger dark daughter dawn day dead deal dear debate december
decide decimal deep deer degree deliver depend desert design desk dessert detail develop diamond
dictionary difference different difficult dinner dinosaur direction dirty discover dish distance
divide doctor dog dollar dolphin done donkey door double down dragon drama draw drawer dream dress
drink drive drop drum dry duck during dust duty each eagle ear early earn earth earthquake easily
east easy eat echo edge education effort egg eight eighteen either elbow electric elephant eleven
else empty end enemy energy engine enjoy enough enter entire equal escape even evening event ever
every everybody everything exact exam example except excited exercise exit expect explain express
eye face fact factory fail fair fairy faith fall false family famous fancy far farm farmer fashion
fast father favorite fear feather february feed feel feet fellow fence festival fever few field
fifteen fifth fifty fight figure fill film final find finger finish fire fireplace first fish five
flag flame flat flavor flight float floor flour flower fly fog fold follow food foot football force
foreign forest forever forget fork form fortune forty forward found fountain four fox frame free
freedom freeze fresh friday friend friendly friendship frog front frozen fruit full fun funny
furniture future gallery game garage garden garlic gate gather gentle ghost giant gift giraffe girl
give glad glass glove goal goat gold golden good goodbye goose government grain grand grandfather
grandmother grape grass gravity gray great green greet grocery ground group grow guard guess guest
guide guitar habit hair half hall hammer hand happen happiness happy harbor hard harvest hat have
head health heart heat heaven heavy helicopter hello help hen here hero hidden high hill hire
history hobby hole holiday hollow home homework honest honey hope horse hospital host hotel hour
house however huge human humble hundred hungry hunt hurry hurt husband idea imagine important inch
include increase industry insect inside instead interest into invent invite iron island jacket
january jelly jewel job join joke journey joy judge juice july jump june jungle junior just justice
kangaroo keep kettle key keyboard kick kid kind king kingdom kiss kitchen kite kitten knee knife
knock know knowledge ladder lady lake lamb lamp land language large last late laugh laundry law lazy
lead leader leaf learn least leather leave left leg legend lemon lemonade length lesson letter
lettuce level library life lift light lightning like lily limit line lion lip list listen little
live lizard local lock lonely long look lose loud love lovely lower luck lucky lunch machine magazine
magic magnet mail main make mango manner many map maple marble march margin market marriage
mathematics matter maybe meadow meal mean measure meat medicine medium meet melon melt member memory
mention metal meter middle midnight might mile milk million mind minute mirror mississippi mistake
mix model modern moment monday money monkey monster month moon morning mosquito mother motion motor
mountain mouse mouth move movie much mud multiply muscle museum mushroom music musician must mystery
name narrow nation natural nature near neck need needle neighbor neither nephew nervous nest never
new news newspaper next nice night nine nineteen nobody noise none noodle noon north nose note
nothing notice november number nurse ocean october octopus offer office often old olive once onion
only open opinion orange orchard order ordinary other ought ounce outside oven over owl owner oxygen
package page paint pair palace pancake panda paper parade parent park parrot part partner party pass
past path patient pattern peace peach peanut pear pearl pebble pen pencil penguin people pepper
perfect perhaps period person photo piano picnic picture piece pig pillow pilot pine pink pizza
place plain plan planet plant plastic plate play please plenty plus pocket poem poet point police
polite pond pony pool poor popcorn popular porch possible potato pound powder power practice prepare
present president pretty price pride prince princess print prison private prize problem product
program promise proper protect proud public pull pumpkin puppy purple purpose push puzzle pyramid
quality quarter queen question quick quiet quite rabbit race radio railroad rain rainbow raise ranch
raspberry rather reach read ready real reason receive record red refrigerator region remember repeat
reply report rescue rest restaurant result return reverse rhythm ribbon rice rich riddle ride right
ring ripe rise river road roast robot rock rocket roof room root rope rose rough round row royal
rubber rule ruler run runner rush sad saddle safe sail salad salt same sample sand sandwich
satellite saturday sauce sausage save scale scared school science scientist scissors score scream
screen sea search season seat second secret see seed seem sell send sentence september serious
serve seven seventeen several shadow shake shallow shape share sharp sheep shelf shell shelter shine
ship shirt shoe shop short should shoulder shout show shower shrimp sick side sign signal silence
silent silk silver similar simple sing single sister six sixteen size skate skill skin skirt sky
sleep slice slow small smart smell smile smoke smooth snack snail snake snow soap soccer social sock
soft soldier solid some somebody something song soon sort sound soup south space spaghetti spare
speak special speed spell spider spin spirit spoon sport spread spring square squirrel stairs stamp
stand star start state station statue stay steam steel step stick still stomach stone stop store
storm story stove straight strange straw strawberry stream street strength string strong student
study subject subtract success sudden sugar suggest summer sun sunday sunflower sunny sunset
supermarket sure surface surprise swallow sweater sweet swim swing sword syrup system table tail
take tale talent tall target taste taxi tea teach teacher team tear teeth telephone television tell
temple ten tennis tent test thank theater their then there thick thin thing think thirsty thirteen
thirty this though thought thousand three throat through throw thumb thunder thursday ticket tide
tidy tie tiger tiny tired title toast today toe together toilet tomato tomorrow tongue tonight too
tool tooth top total touch tourist toward towel tower town toy track trade traffic train travel
treasure tree triangle trip trouble truck true trumpet trust truth try tuesday tulip tunnel turkey
turn turtle twelve twenty twice twin two ugly umbrella uncle under understand uniform unique unit
universe until upper upset use useful usual vacation valley value vanilla vegetable very victory
video view village violet violin visit vitamin voice volcano vowel wagon wait wake walk wall wallet
walnut want war warm wash waste watch water waterfall watermelon wave weak wealth wear weather
wednesday week weekend weight welcome well west whale what wheat wheel when where whether which
whisper whistle white whole why wide wife wild win wind window wine wing winner winter wire wisdom
wise wish with without wizard wolf woman wonder wonderful wood wool word work worker world worm worry
would wound write wrong yard year yellow yesterday yogurt young zebra zero zipper
"""
COMMON = tuple(_COMMON.split())

_KNOWN = """
about add after all and appear are arrange ascending ask away backward backwards base bases
between biggest binary both calculate can capital code combine comes common compute convert count
countdown days decimal divides divisor does equals explain express factor find for found from gcd
get give good greatest have hello help hex hexadecimal highest how ingle into know largest less
letter letters like list make many minus much multiplied multiply name number numbers occur octal
often old order out please plus prime product put puzzles reach reasoner result reverse reversed
sentence small smallest solve sort spell spelled subtract sum take target tell ternary that the
there these this times today together total trained try turn use using very way what where which
who why with word words work write you your
"""
KNOWN = dict.fromkeys(_KNOWN.split())  # in order, and quick to ask

_ONSETS = (
    *"bcdfghjklmnprstvwz", "bl", "br", "ch", "cl", "cr", "dr", "fl", "gr", "pl", "pr", "qu", "sh",
    "st", "th", "tr",
)  # fmt: skip
_VOWELS = (*"aeiou", *"aeiou", "ea", "ee", "oo", "ai", "y")
_CODAS = ("", "", "", *"nrstlmdx", "ck", "ll", "nd", "rt", "ss", "st")


def draw_word(rng: random.Random, shortest: int, longest: int) -> str:
    """A lower-case word of `shortest` to `longest` letters, two times of five a made-up one."""
    length = rng.randint(shortest, longest)
    draw = rng.random()
    if draw < MADE_UP_SHARE:
        return make_up(rng, length)
    words = _of_length(draw < MADE_UP_SHARE + KNOWN_SHARE, length)
    return rng.choice(words) if words else make_up(rng, length)


@cache
def _of_length(known: bool, length: int) -> list[str]:
    return [word for word in (KNOWN if known else COMMON) if len(word) == length]


def make_up(rng: random.Random, length: int) -> str:
    """Syllables cut to `length` letters."""
    word = ""
    while len(word) < length:
        word += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
    return word[:length]
