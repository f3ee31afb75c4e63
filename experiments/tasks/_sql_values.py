"""Where the made-up tables of text2sql get their cells from."""

import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Words:
    """Texts of one word of each list, in this order: a first and a last name, say."""

    parts: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """How many texts there are."""
        return math.prod(map(len, self.parts))

    def draw(self, rng: Random) -> str:
        """One text."""
        return " ".join(rng.choice(part) for part in self.parts)

    def __add__(self, other: "Words") -> "Words":
        return Words(self.parts + other.parts)


@dataclass(frozen=True)
class Numbers:
    """Numbers from low to high; whole ones, or with so many decimals."""

    low: int
    high: int
    decimals: int = 0

    def draw(self, rng: Random) -> int | float:
        """One number."""
        if self.decimals == 0:
            return rng.randint(self.low, self.high)
        return round(rng.uniform(self.low, self.high), self.decimals)


def words(*parts: str) -> Words:
    """Lists written with bars between the words."""
    return Words(tuple(tuple(part.split("|")) for part in parts))


PERSON = words(
    "Ada|Akira|Alma|Amir|Ana|Anton|Bela|Boris|Carla|Chen|Clara|Colin|Dana|David|Elena|Elif|Emil|Erik|Fatima|Felix|Gina|"
    "Hanna|Hugo|Ines|Ivan|Jana|Jonas|Julia|Karim|Kofi|Lars|Leila|Liam|Lucia|Marco|Maria|Mei|Milan|Nadia|Nils|Nora|Omar|"
    "Oscar|Paula|Pedro|Petra|Priya|Rosa|Ruth|Samir|Sara|Simon|Sofia|Tariq|Tessa|Theo|Tomas|Vera|Viktor|Wei|Yara|Zoe",
    "Abbott|Alvarez|Andersen|Banerjee|Becker|Bianchi|Brandt|Carter|Castro|Chandra|Costa|Cruz|D'Angelo|Diaz|Dubois|"
    "Eriksen|Farkas|Fischer|Fontaine|Garcia|Grant|Haas|Hansen|Hayes|Horvat|Ito|Jansen|Kaya|Keller|Khan|Kim|Kovacs|"
    "Larsen|Lehmann|Lopez|Marsh|Meyer|Moreau|Mori|Nagy|Novak|O'Brien|O'Neill|Okafor|Olsen|Park|Patel|Pavlov|Perez|"
    "Quinn|Ramos|Reyes|Rossi|Sato|Schmidt|Silva|Singh|Stone|Suzuki|Tanaka|Torres|Usman|Vargas|Vogel|Walsh|Weber|Wood|"
    "Yilmaz|Young|Zhang",
)
COUNTRY = words(
    "Argentina|Australia|Austria|Belgium|Brazil|Canada|Chile|China|Croatia|Denmark|Egypt|Finland|France|Germany|Ghana|"
    "Greece|Hungary|India|Ireland|Italy|Japan|Kenya|Mexico|Morocco|Nepal|New Zealand|Nigeria|Norway|Peru|Poland|"
    "Portugal|Romania|Senegal|South Africa|Spain|Sweden|Turkey|Vietnam"
)
CITY = words(
    "Amsterdam|Athens|Austin|Berlin|Boston|Bristol|Cairo|Chicago|Cork|Dallas|Delhi|Denver|Dublin|Geneva|Hamburg|"
    "Helsinki|Houston|Istanbul|Kyoto|Lagos|Lima|Lisbon|London|Lyon|Madrid|Manila|Milan|Montreal|Munich|Nairobi|Naples|"
    "New York|Osaka|Oslo|Paris|Porto|Prague|Quito|Riga|Rome|San Diego|Seattle|Seoul|Sydney|Tokyo|Toronto|Turin|Vienna|"
    "Warsaw|Zurich"
)
_PLACE = (
    "Alder|Ash|Beck|Birch|Black|Brook|Clay|Cliff|Cold|Cross|Dun|East|Elm|Fair|Glen|Green|Hart|Hazel|High|King|Lake|Lang|"
    "Long|Mill|Moor|North|Oak|Red|Rock|Rose|Sand|Silver|South|Stone|Thorn|West|White|Wood"
)
TOWN = words(_PLACE, "Bay|Bridge|Falls|Ferry|Ford|Grove|Harbour|Haven|Hill|Park|Point|Ridge|Springs|Valley|View|Wells")
STADIUM = words(_PLACE, "Arena|Field|Ground|Park|Stadium")
STREET = words(_PLACE, "Avenue|Lane|Road|Street")
PEAK = words("Mount|Peak", _PLACE) + words("Crest|Horn|Spire|Top")
SCHOOL = TOWN + words("Academy|College|University")
MUSEUM = CITY + words("Gallery|Museum")
AIRLINE = COUNTRY + words("Air|Airlines|Airways")
RESTAURANT = words(
    "Blue|Golden|Green|Little|Old|Red|Royal|Three|Two", "Anchor|Bell|Crown|Lemon|Lion|Oak|Olive|Rose|Swan|Table"
)
CLUB = words(
    "Ashford|Brookdale|Carlton|Dunmore|Eastport|Fairview|Glenwood|Harwich|Kingsley|Lakeside|Milltown|Northgate|Oakham|"
    "Redhill|Riverton|Stanmore|Thornbury|Westbrook|Whitby|Woodford",
    "Athletic|City|County|Lions|Rangers|Rovers|Stars|Town|United|Wanderers",
)
TITLE = words(
    "Blue|Broken|Burning|Crimson|Distant|Empty|Endless|Fading|Final|First|Frozen|Gentle|Golden|Hidden|Hollow|Last|"
    "Little|Lonely|Lost|Midnight|Narrow|Quiet|Restless|Scarlet|Second|Secret|Silent|Silver|Sleeping|Strange|Velvet|"
    "Wild|Winter",
    "Bridge|Castle|Circle|City|Crown|Dance|Desert|Door|Dream|Echo|Empire|Fire|Forest|Garden|Harbour|Heart|Highway|"
    "House|Island|Journey|Lake|Letter|Mirror|Moon|Mountain|Night|Ocean|Promise|River|Road|Shadow|Sky|Song|Star|Storm|"
    "Summer|Tide|Tower|Train|Window|Witness",
)
COMPANY = words(
    "Acorn|Alpine|Apex|Atlas|Aurora|Beacon|Cedar|Cobalt|Comet|Delta|Eagle|Falcon|Harbour|Helix|Horizon|Lunar|Meridian|"
    "Nova|Orbit|Orion|Pacific|Pioneer|Polar|Quantum|Sable|Summit|Titan|Vertex|Vista|Zenith",
    "Brothers|Group|Industries|Labs|Media|Partners|Systems|Works",
)
_BRAND = words("Acera|Belmar|Corvo|Dexon|Elara|Fenix|Galia|Halden|Ikon|Juno|Kestrel|Lumo|Marvo|Oriel|Pallas|Quanta")
MODEL = _BRAND + words("A|B|C|D|E|F|G|H|K|L|M|N|P|R|S|T|V|X|Z", "10|12|15|18|20|22|25|30|35|40|45|50|60|70|75|80|90")
SPACECRAFT = _BRAND + words("1|2|3|4|5|6|7|8|9|10|11|12")
ROCKET = words("Ares|Borealis|Cygnet|Drake|Everest|Fury", "I|II|III|IV|V")
AGENCY = words("European|Japanese|National|Nordic|Pacific|Southern", "Rocket|Space", "Agency|Centre")
SHIP = words(
    "Amber|Bold|Brave|Coral|Eastern|Golden|Noble|Northern|Ocean|Proud|Royal|Sea|Silver|Southern|Swift|Western",
    "Arrow|Crown|Dawn|Dolphin|Eagle|Gull|Hawk|Heron|Pearl|Queen|Runner|Spirit|Star|Swan|Trader|Venture",
)
PARTY = words("Centre|Civic|Green|Labour|Liberal|National|People's|Reform|Unity", "Party")
